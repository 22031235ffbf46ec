"""Means over runs: with tasks of their own, with shared ones, in several settings and sets."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from experiments import compare
from experiments.compare.__main__ import main
from flown_jax.errors import UserError

TABLES = ("5-way 1-shot", "10-way 5-shot")
SETS = ("in_distribution", "cifar10")
# By seed: accuracy of the flow in the first setting and set; elsewhere shifted.
ACCURACY = (0.487, 0.491, 0.489)


def row(method, metric, value, half, table=TABLES[0], name=SETS[0], n=600):
    return {
        "table": table,
        "method": method,
        "set": name,
        "metric": metric,
        "value": value,
        "ci95": half,
        "n": n,
    }


def run(seed, tasks=None, **changed):
    rows = [
        found
        for t, table in enumerate(TABLES)
        for s, name in enumerate(SETS)
        for found in (
            row("ridge", "accuracy", 0.4 - 0.1 * t, 0.006, table, name),
            row("flown", "accuracy", ACCURACY[seed] - 0.1 * t - 0.05 * s, 0.006, table, name),
            row("flown", "nll", 1.25, 0.01 + 0.01 * seed, table, name),
        )
    ]
    results = {
        "experiment": "fewshot",
        "variant": "default",
        "seed": seed,
        "seconds": 10.0 * (seed + 1),
        "peak_memory_gib": 1.5,
        "rows": rows,
    }
    return {**results, **({"tasks": tasks} if tasks else {}), **changed}


def only(rows, method="flown", metric="accuracy", table=TABLES[0], name=SETS[0]):
    key = (method, metric, table, name)
    (found,) = [r for r in rows if (r["method"], r["metric"], r["table"], r["set"]) == key]
    return found


@pytest.mark.parametrize("tasks", [(None, None, None), ("aa", "bb", "cc"), ("aa", None, "")])
def test_runs_with_tasks_of_their_own_are_independent(tasks):
    rows = compare.mean_rows([run(seed, tasks[seed]) for seed in range(3)])
    assert len(rows) == 12
    mean = only(rows)
    assert mean["value"] == pytest.approx(0.489) and mean["n"] == 1800 and mean["runs"] == 3
    assert mean["ci95"] == pytest.approx(0.006 / 3**0.5)
    assert only(rows, metric="nll")["ci95"] == pytest.approx((1 + 4 + 9) ** 0.5 * 0.01 / 3)
    assert not any("smallest" in found or "largest" in found for found in rows)


def test_shared_tasks_do_not_narrow_an_interval():
    rows = compare.mean_rows([run(seed, "aa") for seed in range(3)])
    mean = only(rows)
    assert mean["value"] == pytest.approx(0.489) and mean["n"] == 600
    assert mean["ci95"] == pytest.approx(0.006)
    assert only(rows, metric="nll")["ci95"] == pytest.approx(0.02)
    assert (mean["smallest"], mean["largest"]) == (0.487, 0.491)
    assert "smallest" not in only(rows, metric="nll")


def test_shared_in_part_lies_between():
    # Two runs over the same tasks count as one: (2 * 0.006)^2 + 0.006^2, over three.
    mean = only(compare.mean_rows([run(0, "aa"), run(1, "bb"), run(2, "aa")]))
    assert mean["ci95"] == pytest.approx(0.006 * 5**0.5 / 3) and mean["n"] == 1200
    assert mean["value"] == pytest.approx(0.489) and "smallest" not in mean


def test_one_run_is_its_own_mean():
    mine = run(1, "aa")
    means = compare.mean_rows([mine])
    for mean, found in zip(means, mine["rows"], strict=True):
        assert {key: mean[key] for key in found} == pytest.approx(found)
        assert "smallest" not in mean


def test_the_interval_of_shared_tasks_is_never_too_narrow():
    # Accuracies of two runs on 400 tasks that go together as far as tasks are hard or easy: the
    # interval of the mean over runs, taken directly, is at most the mean of the intervals.
    draw = np.random.default_rng(0)
    hardness = draw.normal(size=400)
    for share in (0.0, 0.5, 1.0):
        scores = share * hardness + (1 - share) * draw.normal(size=(2, 400))
        half = 1.96 * scores.std(axis=1, ddof=1) / 20
        direct = 1.96 * scores.mean(axis=0).std(ddof=1) / 20
        runs = [
            run(seed, "aa", rows=[row("flown", "accuracy", scores[seed].mean(), half[seed])])
            for seed in range(2)
        ]
        combined = only(compare.mean_rows(runs))["ci95"]
        assert direct <= combined + 1e-12
        if share == 1.0:  # the bound is met where runs agree
            assert combined == pytest.approx(direct)


def printed(monkeypatch, capsys, tmp_path, runs):
    folders = []
    for results in runs:
        folder = tmp_path / f"seed{results['seed']}"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(results))
        folders.append(str(folder))
    monkeypatch.setattr(sys, "argv", ["compare", *folders])
    main()
    return capsys.readouterr().out


def test_every_setting_and_set_has_its_table_in_the_order_of_the_rows(
    monkeypatch, capsys, tmp_path
):
    text = printed(monkeypatch, capsys, tmp_path, [run(seed, "aa") for seed in range(3)])
    headings = [line[4:] for line in text.splitlines() if line.startswith("### ")]
    assert headings == [
        "5-way 1-shot, in distribution",
        "5-way 1-shot, cifar10",
        "10-way 5-shot, in distribution",
        "10-way 5-shot, cifar10",
    ]
    flown = [line for line in text.splitlines() if line.startswith("| `flown` |")]
    assert flown == [
        f"| `flown` | {cell} | 1.250 ± 0.020 |"
        for cell in (
            "48.9 ± 0.6 (48.7 to 49.1)",
            "43.9 ± 0.6 (43.7 to 44.1)",
            "38.9 ± 0.6 (38.7 to 39.1)",
            "33.9 ± 0.6 (33.7 to 34.1)",
        )
    ]
    assert text.endswith("\n3 runs, 20 s and at most 1.50 GiB each\n") and "Not in" not in text


def test_one_setting_has_the_heading_of_its_set(monkeypatch, capsys, tmp_path):
    runs = [
        run(seed, rows=[row("flown", "accuracy", 0.5, 0.03, table="main")]) for seed in range(2)
    ]
    text = printed(monkeypatch, capsys, tmp_path, runs)
    assert "\n### in distribution\n" in text and "| `flown` | 50.0 ± 2.1 |" in text


def test_what_some_runs_lack_is_said_under_its_table(monkeypatch, capsys, tmp_path):
    shorter = run(1)
    shorter["rows"] = [r for r in shorter["rows"] if r["method"] != "ridge" or r["set"] != SETS[1]]
    text = printed(monkeypatch, capsys, tmp_path, [run(0), shorter])
    assert text.count("Not in all 2 runs: `ridge` (1).") == 2
    after = text.split("### 5-way 1-shot, cifar10")[1].split("###")[0]
    assert "Not in all 2 runs" in after


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([run(0), run(0)], "two of the runs have the same seed."),
        ([run(0), run(1, variant="paper")], "the runs are of different kinds"),
    ],
)
def test_runs_that_make_no_mean_are_refused(runs, sentence):
    with pytest.raises(UserError, match=sentence):
        compare.mean_rows(runs)


def test_folders_without_results_are_named(tmp_path):
    with pytest.raises(UserError, match="absent holds no results.json of a finished run"):
        compare.load(tmp_path / "absent")
    for text in ("[]", '{"rows": []}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(UserError, match=r"results\.json has no results of a run: needs exp"):
            compare.load(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(run(0)))
    assert compare.load(tmp_path) == run(0)
