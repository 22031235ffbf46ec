"""Runs as one: what narrows an interval and what does not, what seeds change, what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from experiments import compare
from experiments.compare.__main__ import compared, main
from experiments.means import over_words
from flown_jax.errors import UserError
from flown_jax.evaluation.classification import interval

pytestmark = pytest.mark.fast

TABLES = ("5-way 1-shot", "10-way 5-shot")
SETS = ("in_distribution", "cifar10")
# By seed: accuracy of the flow in the first setting and set; elsewhere shifted.
ACCURACY = (0.487, 0.491, 0.489)
BASE = (0.401, 0.409, 0.399)


def row(method, metric, value, half, table=TABLES[0], name=SETS[0], n=600, **over):
    cell = {"table": table, "method": method, "set": name, "metric": metric}
    return {**cell, "value": value, "ci95": half, "n": n, "over": "tasks", "unit": "u", **over}


def run(seed, unit=None, **changed):
    unit = unit or f"tasks of {seed}"
    rows = [
        found
        for t, table in enumerate(TABLES)
        for s, name in enumerate(SETS)
        for found in (
            row("class_mean", "accuracy", BASE[seed] - 0.1 * t, 0.006, table, name, unit=unit),
            row("flown", "accuracy", ACCURACY[seed] - 0.1 * t, 0.006, table, name, unit=unit),
            row("flown", "nll", 1.25, 0.01 + 0.01 * seed, table, name, unit=unit),
        )
    ]
    results = {
        "experiment": "fewshot",
        "variant": "default",
        "seed": seed,
        "seconds": 10.0 * (seed + 1),
        "peak_memory_gib": 1.5,
        "rows": rows,
        "config": {"seed": seed, "flow": {"recipe": {"steps": 7}, "source": "kaiming"}},
        "where": f"seed{seed}",
    }
    return {**results, **changed}


def runs_of(*rows_of_each, **over):
    """A run for each list of values: method, accuracy, half width."""
    return [
        run(seed, rows=[row(m, "accuracy", v, half, **over) for m, v, half in rows])
        for seed, rows in enumerate(rows_of_each)
    ]


def only(rows, method="flown", metric="accuracy", table=TABLES[0], name=SETS[0]):
    key = (method, metric, table, name)
    (found,) = [r for r in rows if (r["method"], r["metric"], r["table"], r["set"]) == key]
    return found


def test_tasks_that_each_run_drew_narrow_the_interval():
    rows = compare.mean_rows([run(seed) for seed in range(3)])
    assert len(rows) == 12
    mean = only(rows)
    assert mean["value"] == pytest.approx(0.489) and mean["n"] == 1800
    assert (mean["runs"], mean["units"]) == (3, 3)
    assert mean["ci95"] == pytest.approx(0.006 / 3**0.5)
    assert only(rows, metric="nll")["ci95"] == pytest.approx((1 + 4 + 9) ** 0.5 * 0.01 / 3)
    assert over_words(mean) == "1,800 tasks, each run's own; 3 seeds"


def test_shared_tasks_do_not_narrow_it():
    rows = compare.mean_rows([run(seed, "the same") for seed in range(3)])
    mean = only(rows)
    assert mean["n"] == 600 and mean["ci95"] == pytest.approx(0.006)
    assert only(rows, metric="nll")["ci95"] == pytest.approx(0.02)
    assert over_words(mean) == "600 tasks, the same in all runs; 3 seeds"


def test_shared_in_part_lies_between():
    # Two runs over the same tasks count as one: (2 * 0.006)^2 + 0.006^2, over three.
    mean = only(compare.mean_rows([run(0, "aa"), run(1, "bb"), run(2, "aa")]))
    assert mean["ci95"] == pytest.approx(0.006 * 5**0.5 / 3) and mean["n"] == 1200
    assert over_words(mean) == "1,200 tasks, shared in part; 3 seeds"


@pytest.mark.parametrize("over", ["networks", "runs", "images", "seeds"])
@pytest.mark.parametrize("units", ["ababab", "abcdef"])
def test_nothing_but_tasks_narrows(over, units):
    halves = (0.09, 0.08, 0.1)
    runs = runs_of(*[[("flown", 0.7, half)] for half in halves], over=over, n=80)
    for one, unit in zip(runs, units, strict=False):
        one["rows"][0]["unit"] = unit
    mean = only(compare.mean_rows(runs))
    assert mean["ci95"] == pytest.approx(0.09) and mean["n"] == 80
    assert over_words(mean) == f"80 {over} a run, several units; 3 seeds"


def test_the_same_networks_in_all_runs_are_as_unsure_as_in_one():
    text = compared(runs_of(*[[("originals", 0.7, 0.09)]] * 3, over="networks", n=80))
    assert (
        "| `originals` | 70.0 ± 9.0, seeds ± 0.0 | 80 networks a run, one unit; 3 seeds |" in text
    )


def test_the_interval_over_seeds_is_students():
    rows = compare.mean_rows([run(seed, "the same") for seed in range(3)])
    assert only(rows)["seeds"] == pytest.approx(interval(ACCURACY)[1])
    assert only(rows)["seeds"] == pytest.approx(4.3027 * 0.002 / 3**0.5, rel=1e-4)
    assert only(rows, metric="nll")["seeds"] == pytest.approx(0, abs=1e-12)


def test_one_run_is_its_own_mean():
    mine = run(1)
    means = compare.mean_rows([mine])
    for mean, found in zip(means, mine["rows"], strict=True):
        assert {key: mean[key] for key in found} == pytest.approx(found)
        assert mean["seeds"] is None and over_words(mean) == "600 tasks"
    text = compared([mine])
    assert "no interval over seeds" in text and "seeds ±" not in text


def test_the_interval_of_shared_tasks_is_never_too_narrow():
    # Accuracies of two runs on 400 tasks that go together as far as tasks are hard or easy: the
    # interval of the mean over runs, taken directly, is at most the mean of the intervals.
    draw = np.random.default_rng(0)
    hardness = draw.normal(size=400)
    for share in (0.0, 0.5, 1.0):
        scores = share * hardness + (1 - share) * draw.normal(size=(2, 400))
        _, direct = interval(scores.mean(axis=0))
        runs = runs_of(*[[("flown", *interval(own))] for own in scores])
        combined = only(compare.mean_rows(runs))["ci95"]
        assert direct <= combined + 1e-12
        if share == 1.0:  # the bound is met where runs agree
            assert combined == pytest.approx(direct)


@pytest.mark.parametrize(("within", "between"), [(0.05, 0.0), (0.01, 0.05)])
def test_the_intervals_of_a_mean_cover(within, between):
    """Of independent tasks while seeds change nothing; over seeds in any case."""
    rng, hits = np.random.default_rng(0), []
    for _ in range(400):
        runs = []
        for seed in range(3):
            scores = 0.5 + between * rng.normal() + 5 * within * rng.normal(size=25)
            runs += runs_of([("flown", *interval(scores))], unit=f"{seed}")
            runs[-1]["seed"] = seed
        mean = only(compare.mean_rows(runs))
        hits.append([abs(mean["value"] - 0.5) <= mean[name] for name in ("ci95", "seeds")])
    pooled, seeds = np.mean(hits, axis=0)
    tolerance = 3.3 * (0.95 * 0.05 / 400) ** 0.5
    assert abs(seeds - 0.95) < tolerance
    assert abs(pooled - 0.95) < tolerance if not between else pooled < 0.9


def test_differences_are_taken_within_a_run():
    rows = compare.differences([run(seed) for seed in range(3)])
    found = [r for r in rows if (r["table"], r["set"]) == (TABLES[0], SETS[0])]
    (flown,) = found
    apart = [a - b for a, b in zip(ACCURACY, BASE, strict=True)]
    assert flown["against"] == "class_mean" and flown["runs"] == 3
    assert (flown["value"], flown["seeds"]) == pytest.approx(interval(apart))
    (other,) = compare.differences([run(0), run(1)], "flown")[:1]
    assert (other["method"], other["value"]) == ("class_mean", pytest.approx(-0.084))
    with pytest.raises(UserError, match="no run has a method 'ours'; there are class_mean, flown"):
        compare.differences([run(0), run(1)], "ours")


def test_after_fine_tuning_the_last_epoch_is_compared():
    def of(seed, start, values):
        metrics = {f"accuracy_epoch_{e}": v for e, v in zip((0, 5, 25), values, strict=True)}
        return [row(start, m, v, 0.1, "initialise", over="runs") for m, v in metrics.items()]

    runs = [
        run(seed, rows=of(seed, "flown", (0.9, 0.9, 0.8 + gain)) + of(seed, "zoo_start", [0.7] * 3))
        for seed, gain in enumerate((0.0, 0.1))
    ]
    (found,) = compare.differences(runs)
    assert (found["metric"], found["against"]) == ("accuracy_epoch_25", "zoo_start")
    assert found["value"] == pytest.approx(0.15)


def printed(monkeypatch, capsys, tmp_path, runs, *more):
    folders = []
    for results in runs:
        folder = tmp_path / f"seed{results['seed']}"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(results))
        folders.append(str(folder))
    monkeypatch.setattr(sys, "argv", ["compare", *folders, *more])
    main()
    return capsys.readouterr().out


def test_differences_come_first_and_every_line_says_what_its_intervals_are_over(
    monkeypatch, capsys, tmp_path
):
    text = printed(monkeypatch, capsys, tmp_path, [run(seed) for seed in range(3)])
    headings = [line[4:] for line in text.splitlines() if line.startswith("### ")]
    about = "accuracy minus that of `class_mean`, points: mean ± 95 % interval over 3 seeds"
    assert headings == [
        f"5-way 1-shot, {about}",
        f"10-way 5-shot, {about}",
        "5-way 1-shot, in distribution",
        "5-way 1-shot, cifar10",
        "10-way 5-shot, in distribution",
        "10-way 5-shot, cifar10",
    ]
    assert text.count("| `flown` | +8.6 ± 1.0 | +8.6 ± 1.0 |") == 2
    own = "1,800 tasks, each run's own; 3 seeds |"
    lines = [line for line in text.splitlines() if line.startswith("| `") and "+8.6" not in line]
    assert len(lines) == 8 and all(line.endswith(own) for line in lines)
    assert f"| `flown` | 48.9 ± 0.3, seeds ± 0.5 | 1.250 ± 0.012, seeds ± 0.000 | {own}" in lines
    assert text.endswith("\n3 runs, 20 s and at most 1.50 GiB each\n") and "Not in" not in text
    assert "what all runs share" in text


def test_another_method_can_be_compared_with(monkeypatch, capsys, tmp_path):
    text = printed(monkeypatch, capsys, tmp_path, [run(0), run(1)], "--against=flown")
    assert "minus that of `flown`, points: mean ± 95 % interval over 2 seeds" in text
    assert "| `class_mean` | -8.4 ±" in text


def test_a_table_without_the_other_method_is_told():
    runs = [run(0), run(1)]
    for one in runs:
        one["rows"] = [
            r for r in one["rows"] if r["method"] != "class_mean" or r["table"] == TABLES[0]
        ]
    text = compared(runs, "class_mean")
    assert text.count("No row of 10-way 5-shot is of `class_mean`.") == 1
    assert "No row of 5-way" not in text and "No row of" not in compared(runs)


def test_one_setting_has_the_heading_of_its_set():
    text = compared(runs_of([("flown", 0.5, 0.03)], [("flown", 0.5, 0.03)], table="main"))
    assert "\n### in distribution\n" in f"\n{text}"


def test_what_some_runs_lack_is_said_under_its_table():
    shorter = run(1)
    shorter["rows"] = [
        r
        for r in shorter["rows"]
        if r["set"] != SETS[1] or (r["method"] != "class_mean" and r["metric"] != "nll")
    ]
    text = compared([run(0), shorter])
    gaps = "Not in all 2 runs: `class_mean` (1: accuracy); `flown` (1: nll)."
    assert text.count(gaps) == 2
    after = text.split("### 5-way 1-shot, cifar10")[1].split("###")[0]
    assert gaps in after
    assert "| `flown` | +8.4 ± 2.5 | +8.6 (1 runs) |" in text


def test_metrics_of_every_experiment_are_shown():
    runs = [
        run(seed, rows=[row("epoch 1", metric, 0.5, None, "main") for metric in ("loss", "depth")])
        for seed in range(2)
    ]
    assert "| method | loss | depth | ± over |" in compared(runs)


def test_other_versions_of_the_libraries_are_told():
    runs = [
        run(seed, environment={"flown_jax": "1", "packages": {"jax": version, "numpy": "2"}})
        for seed, version in enumerate(("0.4", "0.5"))
    ]
    (sentence,) = compare.other_versions(runs)
    assert sentence == "The runs were made with several versions of jax: 0.4, 0.5."
    assert compared(runs).startswith(sentence)
    assert compare.other_versions(runs[:1] * 2) == []


def with_field(seed, *names, value=8):
    config = json.loads(json.dumps(run(seed)["config"]))
    part = config
    for name in names[:-1]:
        part = part[name]
    part[names[-1]] = value
    return run(seed, config=config)


def changed_row(seed, **fields):
    rows = [{k: v for k, v in {**r, **fields}.items() if v != ""} for r in run(seed)["rows"]]
    return run(seed, rows=rows)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (run(0), "two of the runs have the same seed."),
        (run(1, variant="paper"), "the runs are of different kinds"),
        (
            with_field(1, "flow", "recipe", "steps"),
            "the runs differ in more than their seed: flow.recipe.steps.",
        ),
        (with_field(1, "samples"), "the runs differ in more than their seed: samples."),
        (run(1, config={"seed": 1}), "their seed: flow.recipe.steps, flow.source."),
        (run(1, config=None), "seed1 has no config.json: whether its run differs"),
        (changed_row(1, over=""), "seed1/results.json does not say what its intervals are over"),
        (changed_row(1, unit=""), "seed1/results.json does not say what its intervals are over"),
        (changed_row(1, over="luck"), "seed1/results.json does not say what its intervals are"),
        (changed_row(1, over="networks"), "accuracy are not over the same thing"),
        (changed_row(1, n=""), "seed1/results.json has a row without"),
        (changed_row(1, value=None), "seed1/results.json has no number in"),
        (run(1, rows=run(1)["rows"] * 2), "in_distribution accuracy twice"),
    ],
)
def test_runs_that_make_no_mean_are_refused(other, sentence):
    with pytest.raises(UserError, match=sentence):
        compare.mean_rows([run(0), other])


def test_fields_that_change_nothing_may_differ():
    other = with_field(1, "tensorboard", value=True)
    assert len(compare.mean_rows([run(0), other])) == 12


def test_folders_without_results_are_named(tmp_path):
    with pytest.raises(UserError, match="absent holds no results.json of a finished run"):
        compare.load(tmp_path / "absent")
    for text in ("[]", '{"rows": []}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(UserError, match=r"results\.json has no results of a run: needs exp"):
            compare.load(tmp_path)
    found = run(0)
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert compare.load(tmp_path) == {**found, "where": str(tmp_path)}
    # Runs of earlier versions have it beside their results.
    config = found.pop("config")
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert compare.load(tmp_path)["config"] is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compare.load(tmp_path)["config"] == config
