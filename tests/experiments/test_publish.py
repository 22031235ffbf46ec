"""Pages of results: means of runs, a table a quantity, the same text from the rows kept beside.

`published/` holds pages of tiny runs, trimmed to a few rows, which are no results: where the words
of pages change, `python -m experiments.publish --again --to=tests/experiments/published` makes them
anew.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

import numpy as np
import pytest

from experiments.publish import __main__ as publish
from experiments.publish import page, quantities, stored
from experiments.report import write_report
from flown_jax.evaluation import tables
from flown_jax.files import write_json
from tests.evaluation.test_figures import picture
from tests.parity.fixtures import ROOT

KEPT = pathlib.Path(__file__).with_name("published")
PAGES = ROOT / "docs" / "results"
SETS = {"near": "Near: known classes", "far": "Far: others"}
METHODS = ("linear_probe", "ridge", "flown_ensemble", "flown_top3_query")
REMARKS = {"ridge": "closed form", "flown_top3_query": "the best by the query labels"}
CONFIG = {"variant": "default", "seed": 0, "flow": {"steps": 7}}


def row(table, method, name, metric, value, half=0.01, n=100, over="tasks", unit="tasks of 0"):
    found = {"table": table, "method": method, "set": name, "metric": metric, "value": value}
    return {**found, "ci95": half, "n": n, "over": over, "unit": unit}


def heads(seed, settings=("5-way 1-shot",)):
    """Rows of a few-shot run."""
    found = []
    for table in settings:
        for m, method in enumerate(METHODS):
            for name in SETS:
                value, of = 0.5 + 0.1 * m + 0.01 * seed, (table, method, name)
                unit = {"unit": f"tasks of {seed}"}
                found.append(row(*of, "accuracy", value, **unit))
                found.append(row(*of, "accuracy_minus_probe", 0.1 * m, **unit))
                found.append(row(*of, "accuracy_minus_ridge", 0.1 * (m - 1), **unit))
                found.append(row(*of, "nll", 1.25 + 0.1 * seed, **unit))
    return found


def networks(seed):
    """Rows of a retrieval run."""
    found = []
    for m, method in enumerate(("originals", "kde", "flown")):
        of, rest = ("retrieval", method, "digits"), {"n": 24, "over": "networks", "unit": "zoo"}
        found.append(row(*of, "accuracy", 0.9 - 0.1 * m + 0.01 * seed, **rest))
        found.append(row(*of, "accuracy_top5", 0.95, None, **rest))
        found.append(row(*of, "copies", float(m), None, **rest))
        found.append(row(*of, "diversity", 0.5 * m, **rest))
    for start in ("flown", "zoo_start"):
        for epoch in (0, 5):
            of = ("initialise", start, "digits", f"accuracy_epoch_{epoch}")
            found.append(row(*of, 0.5 + 0.05 * epoch, n=3, over="runs", unit="starts"))
    return found


def write(folder, rows, experiment="fewshot", seed=0, variant="default", config=None, **more):
    """A finished run's folder."""
    folder.mkdir(parents=True)
    results = {
        "experiment": experiment,
        "variant": variant,
        "seed": seed,
        "seconds": 100.0 + seed,
        "peak_memory_gib": 1.5,
        "environment": {"date": "2026-11-30", "cpu_available": 2, "processor": "A CPU"},
        "config": {**(config or CONFIG), "seed": seed, "variant": variant},
        "titles": SETS if experiment == "fewshot" else {},
        "rows": rows,
        **more,
    }
    texts = {}
    for table, name in dict.fromkeys((r["table"], r["set"]) for r in rows):
        first = "start" if table == "initialise" else "method"
        words = (
            {"flown": "generated", "zoo_start": "random"}
            if first == "start"
            else {**REMARKS, "flown": "ours"}
        )
        texts[f"{table}. {name}"] = tables.markdown(rows, name, table, words, first=first)
    sentence = f"Chosen: {seed}, of /home/someone/zoos/mine."
    write_report(folder, "A run", f"What was run.\n\n{sentence}", ["A remark."], texts, {}, results)
    write_json(folder / "config.json", results["config"])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two few-shot runs and of two retrieval runs."""
    folder = tmp_path_factory.mktemp("runs")
    found = [write(folder / f"heads{s}", heads(s), seed=s) for s in (1, 0)]
    (found[0] / "figures").mkdir()
    for run in found:
        (run / "figures").mkdir(exist_ok=True)
        (run / "figures" / "reliability.png").write_bytes(f"of {run.name}".encode())
    return [*found, *(write(folder / f"n{s}", networks(s), "retrieval", s) for s in (0, 1))]


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    """A folder of pages."""
    to = tmp_path_factory.mktemp("pages") / "results"
    publish.main([*map(str, runs), f"--to={to}"])
    return to


@pytest.fixture
def undrawn(monkeypatch):
    """Figures cost seconds: without those that are drawn of the rows."""
    monkeypatch.setattr(publish, "pictures", lambda page, rows: {})


def table_of(text, heading):
    """Head and lines of the first table below a heading."""
    lines = text.split(f"\n### {heading}\n")[1].strip().split("\n\n")[0].splitlines()
    assert not any(re.search(r"\d [±(]", line) for line in lines)  # a number stays in its line
    lines = [line.replace("\u00a0", " ") for line in lines]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_runs_of_one_experiment_are_a_page_and_initialisation_has_its_own(published):
    assert sorted(path.name for path in published.glob("*.md")) == [
        "README.md",
        "fewshot.md",
        "initialisation.md",
        "retrieval.md",
    ]
    index = (published / "README.md").read_text()
    assert "| [Few-shot heads](fewshot.md) | 0, 1 | 30 November 2026 | 100 |" in index
    assert "epoch 5" not in (published / "retrieval.md").read_text()
    assert "Copies" not in (published / "initialisation.md").read_text()


def test_a_quantity_is_a_table_of_means_with_both_intervals(published):
    text = (published / "fewshot.md").read_text()
    head, _, *body = table_of(text, "Accuracy, %")
    assert head == ["method", "Near", "Far"] and len(body) == len(METHODS)
    # Tasks of each run's own narrow the interval; Student's of two seeds is wide.
    assert body[0] == ["`linear_probe`", "50.5 ± 0.7 (6.4)", "50.5 ± 0.7 (6.4)"]
    assert "±: 95 % interval over 200 tasks, each run's own; in brackets: over 2 seeds." in text
    assert "Sets: Near: known classes; Far: others." in text
    assert [line[1] for line in table_of(text, "Negative log likelihood, nats")[2:]] == [
        "1.300 ± 0.007 (0.635)"
    ] * len(METHODS)


def test_differences_to_rivals_stand_for_the_headline_alone(published):
    text = (published / "fewshot.md").read_text()
    assert text.count("minus ridge") == 1
    _, _, *body = table_of(text, "Accuracy of `flown_ensemble` minus that of its rivals, points")
    assert [line[0] for line in body] == ["minus probe", "minus ridge"]
    assert body[1][1].startswith("+10.0 ± ")


def test_remarks_are_footnotes_and_selections_are_marked(published):
    text = (published / "fewshot.md").read_text()
    lines = [line[0] for line in table_of(text, "Accuracy, %")[2:]]
    assert lines[1] == "`ridge`<sup>[1](#remarks)</sup>"
    assert lines[3] == "`flown_top3_query` †<sup>[2](#remarks)</sup>"
    assert "\n1. closed form\n2. the best by the query labels\n" in text
    assert text.count("† takes the best by test labels") == 1
    other = (published / "retrieval.md").read_text()
    assert "### Accuracy of the best five networks, % †" in other
    assert (
        "1. ours\n" in other and "1. generated\n" in (published / "initialisation.md").read_text()
    )


@pytest.mark.parametrize(
    ("experiment", "method", "kind"),
    [
        ("retrieval", "flown_task", "ours"),
        ("retrieval", "held_out", "zoo"),
        ("retrieval", "average_of_two", "simple"),
        ("unconditional", "average_of_two_trained_200", "learned"),
        ("unconditional", "flow_on_pca", "learned"),
        ("adapt", "decoder_alone", "ours"),
        ("adapt", "plain_mean", "learned"),
    ],
)
def test_whose_a_method_is(experiment, method, kind):
    assert quantities.kind(experiment, method) == kind


def test_what_no_table_of_a_run_shows_is_on_no_page(tmp_path, undrawn):
    rows = heads(0)
    run = write(tmp_path / "run", rows)
    results = json.loads((run / "results.json").read_text())
    results["rows"].append({**rows[0], "metric": "depth"})
    (run / "results.json").write_text(json.dumps(results))
    publish.main([str(run), f"--to={tmp_path / 'to'}"])
    kept = stored.from_file(tmp_path / "to" / "data" / "fewshot.json")
    metrics = {row["metric"] for row in kept["runs"][0]["rows"]}
    assert metrics == {"accuracy", "accuracy_minus_probe", "accuracy_minus_ridge", "nll"}
    (run / "results.md").unlink()  # a command that writes none shows all
    publish.main([str(run), f"--to={tmp_path / 'all'}"])
    assert "### Depth" in (tmp_path / "all" / "fewshot.md").read_text()


def test_figures_come_first_and_are_there(published):
    for name, files in (
        ("fewshot", ["forest", "rivals", "reliability"]),
        ("retrieval", ["accuracy-against-diversity", "forest"]),
        ("initialisation", ["fine-tuning", "forest"]),
    ):
        text = (published / f"{name}.md").read_text()
        shown = re.findall(r"!\[[^\]]+\]\((figures/[^)]+)\)", text)
        assert sorted(pathlib.Path(path).stem for path in shown) == sorted(files)
        assert text.rindex("![") < text.index("\n## ")
        for path in shown:
            if "reliability" not in path:
                picture(published / path)
    # What a run itself has drawn is the first seed's.
    assert (published / "figures/fewshot/reliability.png").read_bytes() == b"of heads0"


def test_command_seeds_days_machine_stand_below_and_no_folder_of_the_machine(published):
    text = (published / "fewshot.md").read_text()
    made = text.split("## How it was made")[1]
    assert "```bash\npython -m experiments.fewshot --config=configs/fsl.py:default" in made
    assert "--config.seed=S\n```" in made and "S = 0, 1." in made
    assert "30 November 2026" in made and "2 cores of A CPU" in made
    assert "| 1 | 2026-11-30 | 101 | 1.50 |" in made
    assert "/home" not in text and "PATH/mine" in text
    # What all runs say stands once, what one says by its seed.
    assert text.count("- A remark.") == 1 and "- Seed 1: Chosen: 1" in text


def test_pages_are_made_again_without_the_runs(published, tmp_path):
    before = {p: p.read_bytes() for p in published.rglob("*") if p.is_file()}
    for path in [*published.glob("*.md"), published / "figures" / "fewshot" / "forest.png"]:
        path.unlink()
    stale = published / "figures" / "fewshot" / "of-before.png"
    stale.touch()
    publish.main(["--again", f"--to={published}"])
    assert {p: p.read_bytes() for p in published.rglob("*") if p.is_file()} == before


def test_the_order_of_folders_does_not_matter(runs, published, tmp_path, undrawn):
    publish.main([*map(str, runs[::-1]), f"--to={tmp_path}"])
    for path in (published / "data").iterdir():
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", [*KEPT.glob("data/*.json"), *PAGES.glob("data/*.json")])
def test_kept_pages_are_those_of_their_rows(path):
    """What is in the checkout, byte for byte: nobody has written in it by hand."""
    content = stored.from_file(path)
    text, _, shown = publish.made(path.stem, content)
    to = path.parents[1]
    assert (to / f"{path.stem}.md").read_bytes() == text.encode()
    assert stored.to_bytes(content) == path.read_bytes()
    if to == PAGES:
        there = {p.name for p in (to / "figures" / path.stem).iterdir()}
        assert there == set(shown)


@pytest.mark.parametrize("to", [KEPT, PAGES], ids=["kept", "docs"])
def test_every_kept_page_is_listed(to):
    pages = {path.stem: stored.from_file(path) for path in sorted(to.glob("data/*.json"))}
    if pages or to == KEPT:
        assert (to / "README.md").read_text() == page.index(pages)
        assert {path.stem for path in to.glob("*.md")} >= {*pages, "README"}


def test_rows_are_kept_whole(tmp_path):
    """Gaps, other units, other counts; numbers to six digits."""
    draw = np.random.default_rng(0)
    own = [
        [
            row("t", f"m{m}", name, "accuracy", draw.random(), None if m else 0.1, m + 1, unit=unit)
            for m in range(3)
            for name in "ab"
            if draw.random() < 0.7
        ]
        for unit in ("one", "two")
    ]
    content = {name: "" for name in stored._PAGE} | {"titles": {}, "words": {}}
    run = {name: "" for name in stored._RUN}
    content["runs"] = [{**run, "rows": rows} for rows in own]
    (tmp_path / "page.json").write_bytes(stored.to_bytes(content))
    found = stored.from_file(tmp_path / "page.json")
    assert stored.to_bytes(found) == stored.to_bytes(content)

    def sorted_rows(rows):
        return sorted(rows, key=lambda r: (r["set"], r["metric"], r["method"]))

    for kept, rows in zip(found["runs"], own, strict=True):
        for mine, theirs in zip(sorted_rows(kept["rows"]), sorted_rows(rows), strict=True):
            for key in ("value", "ci95"):
                one, other = mine.pop(key), theirs.pop(key)
                assert (one is None) == (other is None)
                assert one is None or one == pytest.approx(other, rel=1e-5)
            assert mine == theirs


def test_settings_of_a_few_shot_run_are_columns(tmp_path):
    run = write(tmp_path / "run", heads(0, ("5-way 1-shot", "10-way 5-shot")))
    publish.main([str(run), f"--to={tmp_path / 'to'}"])
    text = (tmp_path / "to" / "fewshot.md").read_text()
    assert table_of(text, "Accuracy, %")[0][1:] == [
        "5-way 1-shot: Near",
        "5-way 1-shot: Far",
        "10-way 5-shot: Near",
        "10-way 5-shot: Far",
    ]
    assert (
        "what another seed changes is in no interval" in text
        and "(" not in table_of(text, "Accuracy, %")[2][1]
    )
    assert (tmp_path / "to/figures/fewshot/forest-10-way-5-shot.png").exists()


def sentence(monkeypatch, capsys, *arguments):
    """What the command ends with."""
    monkeypatch.setattr(sys, "argv", ["publish", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        publish.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_makes_no_page_is_refused(monkeypatch, capsys, tmp_path, runs):
    def said(*arguments):
        return sentence(monkeypatch, capsys, *arguments, f"--to={tmp_path / 'to'}")

    (tmp_path / "empty").mkdir()
    assert "holds no results.json of a finished run" in said(tmp_path / "empty")
    write_json(tmp_path / "empty" / "config.json", {})
    assert "is of a run that is not finished" in said(tmp_path / "empty")
    cut = write(tmp_path / "cut", heads(0), variant="tiny-try2")
    assert "was cut by --try_steps" in said(cut)
    other = write(tmp_path / "other", heads(2), seed=2, config={**CONFIG, "flow": {"steps": 8}})
    assert "differ in more than their seed: flow.steps" in said(runs[0], other)
    assert "two of the runs have the same seed" in said(runs[0], runs[0])
    assert "folders of finished runs are wanted" in said()
    assert "folders of finished runs are wanted" in said(runs[0], "--again")
    assert "for one page, and these make fewshot, retrieval" in said(*runs, "--name=x")
    assert "letters, digits" in said(runs[0], "--name=../x")
    assert "holds no rows of pages" in said("--again")
    assert not (tmp_path / "to").exists()


def test_a_page_of_another_config_is_not_written_over(monkeypatch, capsys, tmp_path, runs, undrawn):
    to = f"--to={tmp_path / 'to'}"
    other = write(tmp_path / "other", heads(2), seed=2, config={**CONFIG, "flow": {"steps": 8}})
    publish.main([str(runs[0]), to])
    before = (tmp_path / "to" / "fewshot.md").read_bytes()
    assert "is of runs with another config" in sentence(monkeypatch, capsys, other, to)
    assert (tmp_path / "to" / "fewshot.md").read_bytes() == before
    publish.main([str(other), to, "--name=other"])
    publish.main([str(runs[1]), to])  # another seed of the same
    assert (tmp_path / "to" / "other.md").exists()
    assert (tmp_path / "to" / "fewshot.md").read_bytes() != before


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', '{"format": 1, "runs": []}'])
def test_damaged_rows_are_told(monkeypatch, capsys, tmp_path, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fewshot.json").write_text(text)
    found = sentence(monkeypatch, capsys, "--again", f"--to={tmp_path}")
    assert "fewshot.json" in found


def test_runs_of_before_have_the_day_of_their_records(tmp_path, undrawn):
    run = write(tmp_path / "run", heads(0), environment={})
    to = f"--to={tmp_path / 'to'}"
    os.utime(run / "results.json", (86400 * 365, 86400 * 365))
    publish.main([str(run), to])
    kept = stored.from_file(tmp_path / "to" / "data" / "fewshot.json")
    assert kept["runs"][0]["date"] == "1971-01-01"
    record = json.dumps({"stage": "flow", "step": 1, "time": 86400.0})
    (run / "metrics.jsonl").write_text(record + "\n")
    publish.main([str(run), to])
    kept = stored.from_file(tmp_path / "to" / "data" / "fewshot.json")
    assert kept["runs"][0]["date"] == "1970-01-02"
