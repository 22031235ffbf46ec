"""Memory on any number of devices, from that of two runs."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import memory

pytestmark = pytest.mark.fast

MIB = 2**20


def trial(batch, devices, work, state=12 * MIB):
    """A stage's row, of a step whose work is `work` bytes."""
    footprint = {"devices": devices, "parameter_bytes": 3 * MIB, "state_bytes": state}
    footprint |= {"batch_bytes": MIB * batch // devices, "frozen_bytes": MIB, "work_bytes": work}
    return {"name": "flow", "batch": batch, "parameters": 10, "footprint": footprint}


def other(name):
    return {"name": name, "batch": 4, "parameters": 3, "footprint": None}


def test_a_line_through_two_batches():
    """Work of 5 MiB and 7 an example, 1 of which are its inputs."""
    one = {"stages": [trial(8, 1, (5 + 6 * 8) * MIB), other("networks")]}
    two = {"stages": [trial(8, 2, (5 + 6 * 4) * MIB), other("networks")]}
    (stage,) = memory.stages(one, two)
    assert stage.example == 7 * MIB and stage.fixed == (12 + 1 + 5) * MIB
    assert stage.device(128, 1) == (18 + 7 * 128) * MIB
    assert stage.device(128, 64) == (18 + 7 * 2) * MIB
    assert stage.device(128, 512) == (18 + 7) * MIB  # one each
    text = memory.table([stage], {"flow": 128})
    assert text.splitlines()[2].split("|")[1:7] == [
        " flow ",
        " 128 ",
        " 10 ",
        " 12 ",
        " 18 ",
        " 7 ",
    ]


def test_a_step_that_is_not_shared():
    row = trial(8, 1, 40 * MIB)
    (stage,) = memory.stages({"stages": [row]}, {"stages": [row]})
    assert stage.example is None
    assert stage.device(8, 1) == stage.device(8, 512) == stage.whole == (12 + 8 + 1 + 40) * MIB
    assert "not shared" in memory.table([stage], {"flow": 8})


def test_other_batches_are_no_pair():
    with pytest.raises(ValueError, match="flow: batches of 8 and 16"):
        memory.stages({"stages": [trial(8, 1, 1)]}, {"stages": [trial(16, 2, 1)]})


def test_the_command(tmp_path, monkeypatch, capsys):
    for name, devices in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        rows = {"stages": [trial(8, devices, (5 + 48 // devices) * MIB)]}
        (tmp_path / name / "trial.json").write_text(json.dumps(rows))
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", ["memory", *folders, "--batch=flow=1024"])
    memory.main()
    assert "| flow | 1,024 | 10 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["memory", *folders, "--batch=codec=3"])
    with pytest.raises(SystemExit):
        memory.main()
    assert "STAGE=N, of flow" in capsys.readouterr().err
