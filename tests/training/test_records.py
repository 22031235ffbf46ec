"""Metrics on disk, progress on two kinds of streams, and the description of the machine."""

from __future__ import annotations

import builtins
import io
import json
import re
import time

import pytest

from flown_jax.errors import UserError
from flown_jax.training.records import Records, environment, peak_memory_gib, read_metrics

pytestmark = pytest.mark.fast


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_object_a_line_at_once(tmp_path):
    records = Records(tmp_path / "new")
    records.log("vae", 10, {"loss": 0.5, "bad": float("nan"), "count": 3})
    (line,) = (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert abs(found.pop("time") - time.time()) < 60
    assert found == {"stage": "vae", "step": 10, "loss": 0.5, "bad": None, "count": 3}
    records.log("vae", 20, {"loss": 0.25})
    assert [r["step"] for r in read_metrics(tmp_path / "new")] == [10, 20]
    records.close()
    assert read_metrics(tmp_path / "absent") == []


def test_a_killed_runs_torn_line_is_dropped_and_rewinding_forgets(tmp_path):
    records = Records(tmp_path)
    for stage, step in (("a", 1), ("b", 1), ("b", 2), ("b", 3)):
        records.log(stage, step, {})
    records.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "b", "st')
    assert len(read_metrics(tmp_path)) == 4
    records = Records(tmp_path)
    records.rewind("b", 1)
    records.log("b", 2, {})
    assert [(r["stage"], r["step"]) for r in read_metrics(tmp_path)] == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
    ]


def test_plain_lines_come_at_intervals_and_at_the_end(tmp_path):
    stream = io.StringIO()
    records = Records(tmp_path, stream=stream)
    with records.progress("flow", 50, start=10) as update:
        for step in range(11, 51):
            update(step, {"loss": 1.0 / step})
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("flow: step 50/50, ") and "it/s" in line and "left" in line
    assert line.endswith("loss 0.02")
    often = Records(tmp_path, stream=(stream := io.StringIO()), interval=0.0)
    with often.progress("flow", 3) as update:
        for step in (1, 2, 3):
            update(step)
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        f"flow: step {i}/3" for i in (1, 2, 3)
    ]


def test_a_terminal_gets_a_bar_with_the_same_content(tmp_path):
    stream = Terminal()
    with Records(tmp_path, stream=stream).progress("flow", 4) as update:
        for step in (1, 2, 3, 4):
            time.sleep(0.01)
            update(step, {"loss": 0.125})
    text = stream.getvalue()
    for part in ("flow", "4/4", "it/s", "left", "loss 0.125"):
        assert part in text


def test_tensorboard_events_are_written_when_asked(tmp_path):
    pytest.importorskip("tensorboardX")
    records = Records(tmp_path, tensorboard=True)
    records.log("vae", 1, {"loss": 0.5})
    records.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_absent_tensorboard_is_a_sentence(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="need the package tensorboardX"):
        Records(tmp_path, tensorboard=True)


def test_environment_is_json_and_memory_is_sane():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["jax"] and found["cpu_count"] >= 1 and found["devices"]
    assert isinstance(found["processor"], str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert 0.01 < peak_memory_gib() < 1000
