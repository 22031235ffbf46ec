"""The benchmarks' clock, ratios and table; nothing here is about speed."""

from __future__ import annotations

import json
import math
import sys
import time

import pytest

from benchmarks import couplings, harness
from benchmarks.__main__ import NAMES, table
from benchmarks.harness import Case, Timing
from flown_jax import flow

pytestmark = pytest.mark.fast


def _timing(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds, 5)


def _case(name: str, ours: float, **twins: float) -> Case:
    return Case(name, _timing(ours), {n: _timing(s) for n, s in twins.items()}, 1.0, 1e6)


def test_ratio_is_the_fastest_twin_over_ours():
    case = _case("small", 2.0, slow=8.0, fast=4.0)
    assert case.fastest() == "fast"
    assert case.ratio() == 2.0
    assert case.ratio(["slow"]) == 4.0


def test_report_takes_the_smallest_ratio_and_survives_json(monkeypatch):
    monkeypatch.setattr(harness, "matmul_gflops", lambda: 100.0)
    cases = [_case("a", 1.0, loop=4.0, batched=2.0), _case("b", 2.0, loop=6.0, batched=1.0)]
    result = harness.report(
        "heads",
        cases,
        unit="ms",
        seconds_per_unit=1e-3,
        twins=["loop"],
        groups={"loop": ["loop"], "batched": ["batched"]},
    )
    assert json.loads(json.dumps(result)) == result
    assert (result["ratio"], result["case"]) == (3.0, "b")
    assert math.isclose(result["ratio"], result["twin"] / result["ours"])
    assert result["ratios"] == {"a loop": 4, "a batched": 2, "b loop": 3, "b batched": 0.5}
    assert {"name", "ours", "twin", "unit", "device"} <= set(result)
    assert math.isclose(result["matmul_share"], 0.0, abs_tol=1e-3)


def test_race_gives_every_contestant_a_turn_in_every_round(monkeypatch):
    monkeypatch.setattr(harness, "_SAMPLE_SECONDS", 0.03)
    turns: list[str] = []

    def work(name: str):
        def run(units: int) -> None:
            turns.append(name)
            time.sleep(0.01 * units)

        return run

    timings = harness.race({"a": work("a"), "b": work("b")}, seconds=0.0)
    assert timings["a"].rounds == timings["b"].rounds == 4
    assert timings["a"].median >= 0.01  # per unit, whatever the number of units in a sample
    assert turns[2:] == ["a", "b", "b", "a"] * 2
    assert harness.race({"a": work("a")}, seconds=0.0, rounds=2)["a"].rounds == 2


def test_first_call_is_what_the_second_does_not_take():
    seconds = iter([0.05, 0.0])
    assert harness.first_call(lambda n: time.sleep(next(seconds))) > 0.03


def test_without_torch_one_sentence_and_status_two(monkeypatch, capsys):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        harness.require_torch()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "flown_jax[torch]" in error


def test_main_prints_the_result_last(monkeypatch, capsys):
    monkeypatch.setattr(harness, "require_torch", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x", "--seconds", "3"])
    monkeypatch.setattr(harness.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    case = {"case": "a", "ours": 1.0, "twins": {"loop": 2.0}}
    harness.main("Title.", lambda s: {"seconds": s, "unit": "ms", "cases": [case]}, seconds=9.0)
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1])["seconds"] == 3.0
    assert json.loads(lines[-1])["load_before"] == 0.0
    assert lines[0].startswith("a: ours 1.0 ms")


def test_a_twin_without_torch_needs_no_torch(monkeypatch, capsys):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(harness.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    harness.main("Title.", lambda s: {"unit": "ms", "cases": []}, seconds=9.0, torch=False)
    out = capsys.readouterr().out
    assert "load 1000" in out and "PyTorch" not in out


def test_couplings_of_the_twin_cost_the_same_and_others_are_refused(monkeypatch):
    monkeypatch.setattr(harness, "_SAMPLE_SECONDS", 0.0)
    case = couplings.measure(12, 0.0, width=3)
    assert list(case.twins) == ["pot"] and case.ours.rounds == 4
    assert case.flops > 0 and case.ratio() > 0
    monkeypatch.setattr(flow, "exact_ot", flow.independent)
    with pytest.raises(RuntimeError, match="total cost differs"):
        couplings.measure(12, 0.0, width=3)


def test_main_warns_of_a_loaded_machine(monkeypatch, capsys):
    monkeypatch.setattr(harness, "require_torch", lambda: None)
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(harness.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    harness.main("Title.", lambda s: {"unit": "ms", "cases": []}, seconds=9.0)
    assert "load 1000" in capsys.readouterr().out


def test_table_has_a_row_for_every_ratio():
    result = {
        "name": "heads",
        "ratio": 2.0,
        "ratios": {"a": 2.0, "b": 3.0},
        "ours": 1.0,
        "twin": 2.0,
        "unit": "ms",
        "device": "cpu",
    }
    text = table([result])
    assert "| heads | a | 2.00 | cpu |" in text
    assert "| heads | b | 3.00 | cpu |" in text


def test_names_are_those_of_the_contract():
    assert {"heads", "flow_step", "sampling", "couplings", "graph_encoder"} <= set(NAMES)
