"""Results that runs share: computed once, resumed by anyone, damaged, unusable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from flown_jax.errors import UserError
from flown_jax.training import stage
from flown_jax.training.fingerprints import plain_values
from tests.training import toy
from tests.training.test_stages import INPUTS, ROOT, Killed, content, die, never, produce


def test_runs_share_a_result_and_other_inputs_are_another(tmp_path):
    shared = tmp_path / "shared"
    first = stage(tmp_path / "one", "vae", INPUTS, produce, shared=shared)
    assert first.path == shared / f"vae-{first.fingerprint[:16]}" and not first.reused
    assert sorted(p.name for p in first.path.iterdir()) == ["outputs.safetensors", "stage.json"]
    before = content(first.path)
    second = stage(tmp_path / "two", "vae", INPUTS, never, shared=str(shared))
    toy.assert_equal(second.values, first.values)
    assert second.reused and second.path == first.path and second.seconds == first.seconds
    assert content(first.path) == before
    # A run of its own computes for itself, and both stand for the same in later inputs.
    own = stage(tmp_path / "two", "vae", INPUTS, produce)
    assert own.fingerprint == first.fingerprint and not own.reused
    assert stage(tmp_path / "two", "vae", INPUTS, never).reused
    assert plain_values({"vae": own}) == plain_values({"vae": second})
    for name, inputs in (("vae", {**INPUTS, "steps": 4}), ("codec", INPUTS)):
        other = stage(tmp_path / "two", name, inputs, produce, shared=shared)
        assert other.path.parent == shared and other.path != first.path and not other.reused
    assert content(first.path) == before
    assert not list((tmp_path / "one").rglob("stage.json"))


def test_what_a_kill_left_in_a_shared_stage_is_used_by_the_next_run(tmp_path):
    shared = tmp_path / "shared"
    with pytest.raises(Killed):
        stage(tmp_path / "one", "vae", INPUTS, die, shared=shared)

    def resume(context):
        assert (context.directory / "half").read_text() == "x"
        return produce(context)

    # Other inputs begin anew: nothing is refused.
    stage(tmp_path / "two", "vae", {**INPUTS, "steps": 4}, produce, shared=shared)
    result = stage(tmp_path / "two", "vae", INPUTS, resume, shared=shared)
    assert not result.reused and not (result.path / "progress").exists()
    # A kill right after stage.json leaves a finished stage that is not tidy.
    (result.path / "progress").mkdir()
    (result.path / "running.json").write_text("{")
    assert stage(tmp_path / "one", "vae", INPUTS, never, shared=shared).reused
    assert sorted(p.name for p in result.path.iterdir()) == ["outputs.safetensors", "stage.json"]


AT_ONCE = """
import sys, time
from pathlib import Path
from flown_jax.training import stage
from tests.training import test_shared_stages as here

own, shared, begun = map(Path, sys.argv[1:])
def slow(context):
    with open(begun, "a") as file:
        print(own.name, file=file)
    for _ in range(1500):
        if begun.with_name("go").exists():
            return here.produce(context)
        time.sleep(0.02)
    raise TimeoutError
result = stage(own, "vae", here.INPUTS, slow, shared=shared)
print(result.reused, result.values["score"])
"""


def at_once(folder, name):
    return subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, folder / name, folder / "shared", folder / "begun"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, *processes):
    """Until the condition holds; a process that ends before has failed."""
    for _ in range(1200):
        if condition():
            return
        assert all(process.poll() is None for process in processes), "a process ended early"
        time.sleep(0.05)
    raise AssertionError("waited for a minute in vain")


def test_of_two_runs_at_once_one_computes_and_the_other_waits(tmp_path):
    begun, waiting = tmp_path / "begun", "vae: another run is computing"
    first = at_once(tmp_path, "first")
    wait_for(begun.exists, first)
    second = at_once(tmp_path, "second")
    line = second.stderr.readline()  # said while the first computes
    assert line.startswith(f"{waiting} {tmp_path / 'shared'}") and "waiting for it" in line
    assert first.poll() is None and second.poll() is None
    (tmp_path / "go").touch()
    printed = [process.communicate(timeout=60) for process in (first, second)]
    assert [out for out, _ in printed] == ["False 0.5\n", "True 0.5\n"]
    assert begun.read_text() == "first\n"
    assert waiting not in printed[0][1] + printed[1][1]  # once


def test_a_waiting_run_takes_over_from_a_killed_one(tmp_path):
    begun = tmp_path / "begun"
    first = at_once(tmp_path, "first")
    wait_for(begun.exists, first)
    second = at_once(tmp_path, "second")
    assert "waiting for it" in second.stderr.readline()
    first.kill()
    (tmp_path / "go").touch()
    out, error = second.communicate(timeout=60)
    assert out == "False 0.5\n", error
    assert begun.read_text() == "first\nsecond\n"
    for process in (first, second):
        process.communicate()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("outputs.safetensors", lambda p: os.truncate(p, p.stat().st_size - 1)),
        ("outputs.safetensors", Path.unlink),
        ("stage.json", lambda p: os.truncate(p, 20)),
        (
            "stage.json",
            lambda p: p.write_text(
                json.dumps({**json.loads(p.read_text()), "fingerprint": "0" * 64})
            ),
        ),
    ],
)
def test_damaged_shared_results_are_told_in_one_sentence(tmp_path, name, damage):
    shared = tmp_path / "shared"
    result = stage(tmp_path / "one", "vae", INPUTS, produce, shared=shared)
    damage(result.path / name)
    with pytest.raises(UserError) as caught:
        stage(tmp_path / "two", "vae", INPUTS, never, shared=shared)
    sentence = str(caught.value)
    assert sentence.startswith(f"stage vae is damaged (remove {result.path} to run it again): ")
    assert name.split(".")[0] in sentence and "\n" not in sentence
    # What the sentence advises.
    shutil.rmtree(result.path)
    assert not stage(tmp_path / "two", "vae", INPUTS, produce, shared=shared).reused


def test_a_shared_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file is a file: shared results need a folder"):
        stage(tmp_path / "run", "vae", INPUTS, never, shared=tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot use .*file/.*: a part of it is not a folder"):
        stage(tmp_path / "run", "vae", INPUTS, never, shared=tmp_path / "file" / "shared")


def test_a_forbidden_shared_folder_is_told(forbidden):
    with (
        tempfile.TemporaryDirectory() as run,
        pytest.raises(UserError, match="no permission to use") as caught,
    ):
        stage(run, "vae", INPUTS, never, shared=forbidden / "shared")
    assert str(forbidden / "shared") in str(caught.value)


def test_a_finished_result_can_be_read_where_nothing_can_be_written(tmp_path):
    shared = tmp_path / "shared"
    result = stage(tmp_path / "one", "vae", INPUTS, produce, shared=shared)
    lock = shared / f".{result.path.name}.lock"
    lock.unlink()
    assert stage(tmp_path / "two", "vae", INPUTS, never, shared=shared).reused
    assert not lock.exists() and not (tmp_path / "two").exists()
