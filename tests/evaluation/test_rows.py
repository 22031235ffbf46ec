"""Tidy rows: every one says what it is over, since one place alone makes them."""

from __future__ import annotations

import ast
import pathlib

import pytest

from flown_jax.evaluation.rows import Sample

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[2]


def test_a_row_says_what_it_is_over():
    row = Sample("tasks", "abc").row("main", "flown", "near", "accuracy", 0.5, 0.1, 9)
    assert row == {
        "table": "main",
        "method": "flown",
        "set": "near",
        "metric": "accuracy",
        "value": 0.5,
        "ci95": 0.1,
        "n": 9,
        "over": "tasks",
        "unit": "abc",
    }


@pytest.mark.parametrize(("over", "unit"), [("heads", "abc"), ("", "abc"), ("tasks", "")])
def test_a_row_without_it_is_refused(over, unit):
    with pytest.raises(ValueError, match="a row is over one of tasks, networks, runs, images, see"):
        Sample(over, unit)


def test_no_other_place_makes_rows():
    """A dictionary with a value and a half width of its own is a row."""
    makers = set()
    for top in ("flown_jax", "experiments", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text()
            for node in ast.walk(ast.parse(text)) if '"metric"' in text else ():
                if isinstance(node, ast.Dict):
                    keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                    if {"metric", "ci95"} <= keys or {"table", "metric", "n"} <= keys:
                        makers.add(str(path.relative_to(ROOT)))
    assert makers == {"flown_jax/evaluation/rows.py"}


def test_deviations_are_turned_into_intervals_in_one_place():
    """Half widths come from `classification.interval` and its like, with Student's quantile."""
    for top in ("flown_jax", "experiments", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text()
            for word in ("1.96", "stats.sem", "stats.norm", "stats.t.", "stdtrit"):
                assert word not in text or path.name == "classification.py", (path, word)
