"""Processes that tell each other what counts, and what becomes of all when one ends."""

from __future__ import annotations

import ast
import signal
import time

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.training import Checkpoints, fit
from flown_jax.training.parallel import processes
from tests.parallel.several import address, ended, flags, start
from tests.training import toy

STOPPED = "error: stopped; the same command goes on from here."


def together(do, folder, count=2, devices=1):
    return [
        start(["-m", "tests.parallel.together", do, str(folder), *own], devices)
        for own in flags(count)
    ]


@pytest.mark.fast
def test_what_they_tell_each_other(tmp_path):
    found = ended(together("talk", tmp_path, devices=2))
    assert [status for status, _, _ in found] == [0, 0], found
    told = [ast.literal_eval((tmp_path / f"{i}.txt").read_text()) for i in range(2)]
    assert told[0] == told[1]
    assert told[0]["agree"] == told[0]["lead"] == 0
    assert told[0]["gather"] == [[0.0, 2.0**40], [1.0, 2.0**40 + 1]]  # 64 bits arrive
    wanted = [[12.0 * i, 12.0 * i + 6] for i in range(5)]
    assert told[0]["models1"] == told[0]["models2"] == wanted
    assert (told[0]["places"], told[0]["spread"]) == (2, True)
    assert told[0]["shared"] == [[i**2] * 2 for i in range(5)]
    assert [err for _, _, err in found] == [["mine [0, 2, 4]"], ["mine [1, 3, 4]"]]
    assert [out for _, out, _ in found] == [["shown by one"], []]


def test_a_mistake_that_one_meets_ends_all_with_its_sentence(tmp_path):
    for status, _, told in ended(together("refuse", tmp_path)):
        assert (status, told) == (2, ["error: no space left."])


def test_when_one_is_gone_the_other_says_so(tmp_path):
    first, last = ended(together("vanish", tmp_path))
    assert last[0] == 9
    sentence = "error: another process of this run has ended; the same command goes on from here."
    assert (first[0], first[2]) == (3, [sentence])


def test_a_batch_that_they_cannot_share_is_said_before_anything_is_compiled(tmp_path):
    for status, _, told in ended(together("batch", tmp_path, devices=2)):
        sentence = "error: the flow: batch size 6 cannot be shared equally by 4 devices; choose a "
        assert (status, told) == (2, [sentence + "multiple of 4."])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--num_processes=2"], "given together"),
        (["--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=2"], "0 to 1"),
        (
            ["--coordinator_address=here", "--num_processes=2", "--process_id=1"],
            "coordinator_address is 'here'; it is HOST:PORT",
        ),
        (["--distributed"], "the processes of this run were not found"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, given, sentence):
    program = ["-m", "tests.parallel.together", "talk", str(tmp_path), *given]
    ((status, _, told),) = ended([start(program)])
    assert status == 2 and len(told) == 1 and sentence in told[0], told


def test_where_nobody_listens(monkeypatch):
    monkeypatch.setattr(processes, "JOINING", 0.3)
    with pytest.raises(UserError, match="nobody listens at 127.0.0.1:.* process 0 must run there"):
        processes.join(address(), 2, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_saves_and_leaves_within_seconds(tmp_path, count):
    """Of two, the signal comes to the last alone."""
    if count == 1:
        running = [start(["-m", "tests.parallel.together", "fit", str(tmp_path)])]
    else:
        running = together("fit", tmp_path)
    try:
        for line in running[0].stderr:
            if line.startswith("toy: step") and not line.startswith("toy: step 1/"):
                break
        at = int(line.split("/")[0].split()[-1])
        sent = time.monotonic()
        running[-1].send_signal(signal.SIGTERM)
        found = ended(running)
    finally:
        for process in running:
            process.kill()
    assert time.monotonic() - sent < 20
    for status, _, told in found:
        assert status == 143 and told[-1:] == [STOPPED], found
    saved = Checkpoints(tmp_path / "saved")
    done, _ = saved.restore_latest({"state": toy.initial()})
    assert at <= done < 90_000
    # What was saved on the way is what an unbroken run has there.
    if count == 1:
        _, tree = saved.restore_latest({"state": toy.initial()})
        toy.assert_equal(
            tree["state"], fit(toy.initial(), toy.step(), toy.batch_at, steps=done, name="toy")
        )


def test_killed_inside_a_save_two_processes_end_as_one_unbroken(tmp_path):
    """Each is killed once, while a checkpoint is being written; then both are started again."""
    saved, killed = tmp_path / "saved", []
    for victim in (1, 0, None):
        running = together("train", tmp_path)
        before = set(saved.glob("*.json"))
        try:
            while victim is not None and running[victim].poll() is None:
                if any(saved.glob("*orbax*tmp*")) and set(saved.glob("*.json")) - before:
                    running[victim].kill()
                    killed.append(victim)
                    break
            found = ended(running)
        finally:
            for process in running:
                process.kill()
    assert killed == [1, 0] and [status for status, _, _ in found] == [0, 0], found
    unbroken = fit(toy.initial(), toy.step(), toy.batch_at, steps=60, name="toy")
    end = np.load(tmp_path / "end.npz")
    for one, other in zip(end.values(), jax.tree.leaves(unbroken), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
