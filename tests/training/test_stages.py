"""Stages and workdirs: skipped, resumed, refused, damaged, killed."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from flown_jax import files as files_module
from flown_jax.errors import UserError
from flown_jax.training import Checkpoints, Records, StageResult, Workdir, fit, stage
from flown_jax.training.fingerprints import Deferred
from flown_jax.training.stages import FORMAT, fingerprint
from tests.training import toy

ROOT = Path(__file__).parents[2]
INPUTS = {"model": {"width": 5, "dims": (8, 16)}, "steps": 3, "name": "a"}


def produce(context):
    assert context.directory.is_dir()
    (context.directory / "scratch").write_text("x")
    context.records.log(context.name, 1, {"loss": 1.0})
    return {"w": np.arange(4.0).reshape(2, 2).T, "score": 0.5}


def never(context):
    raise AssertionError("a finished stage ran again")


class Killed(Exception):
    """Stands for whatever ends a run."""


def die(context):
    (context.directory / "half").write_text("x")
    raise Killed


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_finished_stage_is_loaded_and_never_rewritten(tmp_path):
    first = stage(tmp_path, "vae", INPUTS, produce)
    assert first.values["w"].tolist() == [[0, 2], [1, 3]] and first.values["score"] == 0.5
    assert sorted(p.name for p in first.path.iterdir()) == ["outputs.safetensors", "stage.json"]
    before = content(first.path)
    second = stage(tmp_path, "vae", json.loads(json.dumps(INPUTS)), never)
    assert content(first.path) == before
    toy.assert_equal(second.values, first.values)
    assert second.fingerprint == first.fingerprint == fingerprint("vae", INPUTS)
    assert second.seconds == first.seconds


def test_results_stand_for_themselves_in_later_inputs(tmp_path):
    first = stage(tmp_path, "vae", INPUTS, produce)
    later = {"vae": first, "steps": 5}
    stage(tmp_path, "flow", later, produce)
    other = StageResult("vae", "0" * 64, first.path, {}, 0.0)
    with pytest.raises(UserError, match=r"stage flow .* vae\.fingerprint = "):
        stage(tmp_path, "flow", {**later, "vae": other}, never)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"model": {"width": 6, "dims": (8, 16)}}, "model.width = 5, and now has model.width = 6"),
        (
            {"model": {"width": 5, "dims": (8, 17)}},
            "model.dims = [8, 16], and now has model.dims = [8, 17]",
        ),
        ({"steps": 3.0}, "steps = 3, and now has steps = 3.0"),
        ({"name": "b", "steps": 4}, 'name = "a", and now has name = "b"'),
        ({"new": None}, "no new, and now has new = null"),
    ],
)
def test_changed_inputs_are_refused_by_name(tmp_path, changed, difference):
    stage(tmp_path / "done", "vae", INPUTS, produce)
    with pytest.raises(UserError) as caught:
        stage(tmp_path / "done", "vae", {**INPUTS, **changed}, never)
    assert str(caught.value) == (
        f"stage vae in {tmp_path / 'done'} was finished with {difference}: choose a new --workdir"
    )
    with pytest.raises(Killed):
        stage(tmp_path / "begun", "vae", INPUTS, die)
    with pytest.raises(UserError) as caught:
        stage(tmp_path / "begun", "vae", {**INPUTS, **changed}, never)
    assert f"was begun with {difference}: choose" in str(caught.value)
    assert (tmp_path / "begun" / "stages" / "vae" / "progress" / "half").exists()


def test_removed_field_and_another_format_are_refused(tmp_path, monkeypatch):
    stage(tmp_path, "vae", INPUTS, produce)
    fewer = {key: INPUTS[key] for key in ("model", "name")}
    with pytest.raises(UserError, match="with steps = 3, which is now absent: choose"):
        stage(tmp_path, "vae", fewer, never)
    monkeypatch.setattr("flown_jax.training.stages.FORMAT", FORMAT + 1)
    with pytest.raises(UserError, match="finished with another version of flown_jax"):
        stage(tmp_path, "vae", INPUTS, never)


def test_unfinished_stage_runs_again_and_counts_all_its_seconds(tmp_path):
    def slow(context):
        time.sleep(0.3)
        die(context)

    with pytest.raises(Killed):
        stage(tmp_path, "vae", INPUTS, slow)

    def resume(context):
        assert (context.directory / "half").exists()
        return produce(context)

    result = stage(tmp_path, "vae", INPUTS, resume)
    assert 0.25 < result.seconds < 30
    assert not (result.path / "progress").exists()


def train(context):
    checkpoints = Checkpoints(context.directory / "fit")
    state = fit(
        toy.initial(),
        toy.step(),
        toy.batch_at,
        steps=toy.STEPS,
        name=context.name,
        checkpoints=checkpoints,
        save_every=1,
    )
    return {"params": state.params, "ema": state.ema_params, "step": int(state.step)}


KILLED = """
import sys, time
from pathlib import Path
from flown_jax.training import stage
from tests.training import test_stages as here, toy

plain = toy.batch_at
def batch_at(index):
    if index == 7:
        Path(sys.argv[2]).touch()
        time.sleep(60)
    return plain(index)
toy.batch_at = batch_at
stage(sys.argv[1], "flow", here.INPUTS, here.train)
"""


def test_kill_in_the_middle_of_a_stage_changes_nothing(tmp_path):
    whole = stage(tmp_path / "whole", "flow", INPUTS, train)
    flag = tmp_path / "flag"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "parts", flag],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    for _ in range(1200):
        if flag.exists() or child.poll() is not None:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    folder = tmp_path / "parts" / "stages" / "flow"
    assert Checkpoints(folder / "progress" / "fit").latest() == 7
    resumed = stage(tmp_path / "parts", "flow", INPUTS, train)
    toy.assert_equal(resumed.values, whole.values)
    name = "outputs.safetensors"
    assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("outputs.safetensors", lambda p: os.truncate(p, p.stat().st_size - 1)),
        ("outputs.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x01")),
        ("outputs.safetensors", Path.unlink),
        ("stage.json", lambda p: os.truncate(p, 20)),
        ("stage.json", lambda p: p.write_text("[]")),
    ],
)
def test_damaged_results_are_told_in_one_sentence(tmp_path, name, damage):
    result = stage(tmp_path, "vae", INPUTS, produce)
    damage(result.path / name)
    with pytest.raises(UserError, match="stage vae is damaged") as caught:
        stage(tmp_path, "vae", INPUTS, never)
    assert name in str(caught.value) and str(result.path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "no permission to use"),
    ],
)
def test_disk_errors_are_told_and_what_is_finished_stays(tmp_path, monkeypatch, code, text):
    done = stage(tmp_path, "vae", INPUTS, produce)
    before = content(done.path)

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files_module.os, "fsync", refuse)
    with pytest.raises(UserError, match=text) as caught:
        stage(tmp_path, "flow", INPUTS, produce)
    assert str(tmp_path / "stages" / "flow") in str(caught.value)
    monkeypatch.undo()
    assert content(done.path) == before
    assert not list((tmp_path / "stages" / "flow").glob("*.safetensors"))
    assert stage(tmp_path, "flow", INPUTS, produce).values["score"] == 0.5


def test_forbidden_folder_is_told(forbidden):
    with pytest.raises(UserError, match="no permission to use") as caught:
        stage(forbidden / "run", "vae", INPUTS, produce)
    assert str(forbidden / "run") in str(caught.value)
    with pytest.raises(UserError, match="no permission to use"):
        Workdir(forbidden / "run", {})


def test_errors_of_the_function_itself_pass(tmp_path):
    def wrong(context):
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match=r"^shapes differ$") as caught:
        stage(tmp_path, "vae", INPUTS, wrong)
    assert not isinstance(caught.value, UserError)


class Bound:
    def method(self, context):
        return produce(context)


def functions_that_see_more():
    steps = 3

    def closed(context):
        return {"steps": steps}

    def defaulted(context, steps=steps):
        return {"steps": steps}

    def named(context, *, steps=steps):
        return {"steps": steps}

    bound = Bound().method
    partial = functools.partial(produce)
    return [closed, defaulted, named, lambda context: {"steps": steps}, partial, bound, Bound]


@pytest.mark.parametrize("function", functions_that_see_more())
def test_functions_that_see_more_than_their_inputs_are_refused(tmp_path, function):
    with pytest.raises(ValueError, match="function of stage vae must see its inputs alone"):
        stage(tmp_path, "vae", INPUTS, function)
    assert not list(tmp_path.iterdir())


def test_a_function_sees_what_was_fingerprinted(tmp_path):
    first = stage(tmp_path, "vae", INPUTS, produce)
    config = ml_collections.ConfigDict({"width": 5})
    given = {"before": first, "model": config, "images": np.ones((2, 2)), "steps": (1, 2)}
    result = stage(tmp_path, "later", given, summed)
    assert result.values["sum"].tolist() == [[6, 8], [7, 9]]
    changed = {**given, "images": np.zeros((2, 2))}
    with pytest.raises(UserError, match=r"images\.sha256 = "):
        stage(tmp_path, "later", changed, never)


def summed(context):
    given = context.inputs
    assert vars(given).keys() == {"before", "model", "images", "steps"} and given.steps == (1, 2)
    return {"sum": given.images + given.before.values["w"] + given.model.width}


def test_other_versions_are_refused(tmp_path, monkeypatch):
    first = stage(tmp_path, "vae", INPUTS, produce)
    assert fingerprint("vae", INPUTS, 1) == first.fingerprint != fingerprint("vae", INPUTS, 2)
    sentence = "stage vae .* was finished with another version of flown_jax: choose a new"
    with pytest.raises(UserError, match=sentence):
        stage(tmp_path, "vae", INPUTS, never, version=2)
    # Of a shared result, each version has its own.
    kept = stage(tmp_path, "vae", INPUTS, produce, shared=tmp_path / "shared", version=1)
    other = stage(tmp_path, "vae", INPUTS, produce, shared=tmp_path / "shared", version=2)
    assert other.path != kept.path and not other.reused
    monkeypatch.setattr("flown_jax.__version__", "99.0")
    with pytest.raises(UserError, match=sentence):
        stage(tmp_path, "vae", INPUTS, never)


@dataclass(frozen=True)
class Data:
    fingerprint: str


def load(context):
    assert context.inputs.data() == Data("a" * 64)
    (context.directory / "made").touch()
    return {"x": 1}


def test_deferred_values_are_made_when_a_stage_runs_and_then_checked(tmp_path):
    made = []

    def make():
        made.append("a" * 64)
        return Data(made[-1])

    inputs = {"data": Deferred("a" * 64, make, "the images of digits")}
    first = stage(tmp_path, "load", inputs, load)
    assert len(made) == 1
    assert stage(tmp_path, "load", inputs, load).reused and len(made) == 1
    # What is deferred and what is there stand for the same.
    assert fingerprint("load", {"data": Data("a" * 64)}) == first.fingerprint
    other = {"data": Deferred("b" * 64, make, "the images of digits")}
    with pytest.raises(UserError, match=r"data\.fingerprint = "):
        stage(tmp_path, "load", other, load)
    with pytest.raises(UserError, match="^the images of digits are no longer those that the run"):
        stage(tmp_path / "new", "load", other, load)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_names_are_folders(tmp_path, name):
    with pytest.raises(ValueError, match="a stage's name has letters"):
        stage(tmp_path, name, {}, produce)


def test_workdir_is_described_and_reopened(tmp_path):
    with Workdir(tmp_path / "run", {"seed": 1}) as workdir:
        stage(workdir, "vae", INPUTS, produce)
        assert isinstance(workdir.records, Records)
    names = {"config.json", "environment.json", "metrics.jsonl", "stages"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    with contextlib.suppress(Killed), Workdir(tmp_path / "run", {"seed": 2}):
        raise Killed
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    with Workdir(tmp_path / "run", {"seed": 2}, stream=io.StringIO()) as workdir:
        stage(workdir, "vae", INPUTS, never)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 2}
    workdir.close()


def test_foreign_folder_and_file_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and was not made by flown_jax"):
        Workdir(tmp_path, {})
    with pytest.raises(UserError, match=r"thesis\.tex is a file: choose a new --workdir"):
        Workdir(tmp_path / "thesis.tex", {})
    with pytest.raises(UserError, match=r"cannot use .*: a part of it is not a folder"):
        Workdir(tmp_path / "thesis.tex" / "run", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    with Workdir(tmp_path / "run", {}):
        with pytest.raises(UserError, match=r"another run is using .*run: wait for it to end"):
            Workdir(tmp_path / "run", {})
        assert os.listdir(tmp_path) == ["run"]
    Workdir(tmp_path / "run", {}).close()


def test_a_run_that_waits_goes_on_when_the_folder_is_free(tmp_path):
    first, said, opened = Workdir(tmp_path / "run", {}), io.StringIO(), []
    second = threading.Thread(
        target=lambda: opened.append(Workdir(tmp_path / "run", {}, stream=said, wait=True))
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()
    first.close()
    second.join(30)
    opened[0].close()
    assert said.getvalue() == f"another run is using {tmp_path / 'run'}; waiting for it\n"
