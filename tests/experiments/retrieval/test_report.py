"""What the retrieval experiment writes: tables of all kinds, pictures, a page, the screen."""

from __future__ import annotations

import json

import pytest

from configs.retrieval import get_config
from experiments import report as shared
from experiments.retrieval import report, words
from flown_jax.errors import UserError

TITLES = {"mnist": "MNIST digits", "usps": "usps", "letters": "letters"}
METRICS = {
    "accuracy": 0.9,
    "accuracy_minus_originals": 0.01,
    "accuracy_top5": 0.93,
    "copies": 3,
    "copies_at_most": 0.1,
    "diversity": 0.25,
    "direction_diversity": 0.2,
    "length": 1.4,
}
METHODS = ("originals", "aligned_mean", "kde", "pca", "flown", "flown_weights", "flown_prior")
CURVES = {
    "mnist": {"flown": {"epochs": [0, 1], "mean": [0.9, 0.91], "std": [0.004, 0.002]}},
    "usps": {"flown": {"epochs": [0, 1], "mean": [0.7, 0.8], "std": [None, None]}},
}


def results() -> dict:
    rows = []

    def add(table, method, name, metric, value, ci95=None, n=50):
        rows.append(
            {"table": table, "method": method, "set": name, "metric": metric}
            | {"value": value, "ci95": ci95, "n": n, "unit": "u"}
            | {"over": "runs" if table == "initialise" else "networks"}
        )

    for name in ("mnist", "letters"):
        for method in METHODS:
            for metric, value in METRICS.items():
                if method != "aligned_mean":
                    half = 0.002 if metric in ("accuracy", "diversity") else None
                    add("retrieval", method, name, metric, value, half)
                elif "diversity" not in metric:
                    add("retrieval", method, name, metric, value, n=1)
        add("retrieval", "flown", name, "right_set", 0.98, n=100)
    for name, runs in (("mnist", 3), ("usps", 1)):
        for epoch, mean in enumerate(CURVES[name]["flown"]["mean"]):
            half = 0.01 if runs > 1 else None
            add("initialise", "flown", name, f"accuracy_epoch_{epoch}", mean, half, runs)
        add("initialise", "flown", name, "learning_rate", 0.004, n=runs)
    return {"experiment": "retrieval", "titles": TITLES, "rows": rows}


def found(**changes) -> dict:
    return {
        "introduction": "What was run.\n\nAnd how.",
        "remarks": ["usps is small."],
        "curves": CURVES,
        "confusion": {"mnist": {"mnist": 0.98, "letters": 0.02}, "letters": {"letters": 1.0}},
        "prior_curves": {"steps": [0, 1], "gaussian": [2.0, 1.0]},
        "accuracies": {"mnist": {"flown": [0.9, 0.91], "kde": [0.8, 0.8]}},
        **changes,
    }


@pytest.fixture
def config():
    return get_config("tiny")


@pytest.fixture
def undrawn(monkeypatch):
    """No figures, which take most of the time."""
    monkeypatch.setattr(report, "_pictures", lambda *_: {})


def written(folder, config, **changes) -> dict[str, list[str]]:
    """Heading -> lines of results.md below it."""
    report.write(folder, config, results(), found(**changes))
    parts = (folder / "results.md").read_text().split("\n## ")
    split = [part.split("\n\n", 1) for part in parts]
    tables = {heading: text.strip().splitlines() for heading, text in split}
    return {
        heading: [line for line in lines if line[:1] == "|"] for heading, lines in tables.items()
    }


def test_every_table_says_what_its_intervals_are_over(tmp_path, config, undrawn):
    written(tmp_path, config)
    text = (tmp_path / "results.md").read_text()
    about = "\n\n± is the half width of the 95 % interval over 50 networks.\n"
    assert text.count(about) == 2  # a table a set
    assert text.count("\n\n± is the standard deviation over 3 runs.\n") == 1
    page = (tmp_path / "report.html").read_text()
    note = "± is the half width of the 95\u00a0% interval over 50 networks.</p>"
    assert f'<p class="notes">{note}' in page


def test_everything_is_written(tmp_path, config):
    written(tmp_path, config)
    assert json.loads((tmp_path / "results.json").read_text()) == results()
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures == {
        "accuracy_against_direction_diversity.png",
        "accuracy_against_diversity.png",
        "accuracies.png",
        "confusion.png",
        "fine_tuning.png",
        "prior_losses.png",
    }
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6 and "usps is small." in page
    head = (tmp_path / "results.md").read_text()
    assert head.startswith("# Retrieval and initialisation: variant tiny, seed 0\n\nWhat was run.")
    assert "\n\n- usps is small.\n\n## All sets" in head


def test_what_is_not_there_has_no_figure(tmp_path, config, monkeypatch):
    drawn = []
    for name in ("accuracy_against_diversity", "accuracy_strips", "confusion", "fine_tuning"):
        monkeypatch.setattr(report.figures, name, lambda path, *_, **more: drawn.append(path.stem))
    monkeypatch.setattr(shared, "html_page", lambda *_: "")
    written(tmp_path, config, prior_curves=None, accuracies={}, remarks=[])
    scatter = ["accuracy_against_direction_diversity", "accuracy_against_diversity"]
    assert drawn == [*scatter, "confusion", "fine_tuning"]


def test_a_set_has_a_line_a_method_with_the_papers_beside_it(tmp_path, config, undrawn):
    tables = written(tmp_path, config)
    lines = tables["Retrieval: MNIST digits"]
    assert lines[0] == (
        "| method | accuracy % | minus originals | top 5 | copies | diversity | directions | "
        "length | right set % | remark |"
    )
    by_method = {line.split("`")[1]: line for line in lines[2:]}
    assert list(by_method) == [*METHODS, *words.PAPER]
    assert by_method["flown"] == (
        "| `flown` | 90.0 ± 0.2 | +1.0 | 93.0 | 3 of 50 | 0.25 | 0.20 | 1.40 | 98.0 | "
        "trained on images: the main design |"
    )
    assert by_method["aligned_mean"].startswith("| `aligned_mean` | 90.0 | +1.0 | 93.0 | 3 of 1 |")
    assert by_method["paper_flown"].startswith("| `paper_flown` |  |  | 91.7 |  |")
    assert not any("paper_" in line for line in tables["Retrieval: letters"])
    # A set of which networks were only trained on is in no table of retrieval.
    assert "Retrieval: usps" not in tables
    assert len({line.count("|") for line in lines}) == 1


def test_remarks_say_which_rows_saw_images(config):
    said = words.remarks(config)
    trained = {m for m, text in said.items() if text.startswith("trained on images")}
    assert trained == {
        "average_of_two_trained",
        "kaiming_trained",
        "flown",
        "flown_task",
        "flown_raw",
    }
    assert {m for m, text in said.items() if text.startswith("weights only")} == {
        "pca",
        "flown_weights",
        "flown_prior",
        "flown_prior_mended",
    }
    assert all("autoencoder was trained on images" in said[m] for m in ("kde", "ddpm"))
    # Without the task loss, as in the paper, nothing of ours has seen images.
    said = words.remarks(get_config("paper"))
    assert {m for m, text in said.items() if "trained on images" in text} == {
        "average_of_two_trained",
        "kaiming_trained",
    }


def test_the_priors_facts_are_one_sentence_each():
    facts = {
        "prior_train_accuracy": 0.5,
        "targets_std": 0.8,
        "prior_std": 0.25,
        "prior_std_mended": 1.1,
        "residual": 0.4,
        "residual_mended": 0.6,
    }
    said = words.prior_sentence(facts)
    for part in ("50.0 %", "of 0.25 and", "with 0.80", "have 1.10", "leave 0.40 and 0.60"):
        assert part in said


def test_the_summary_puts_accuracy_beside_diversity_and_copies(tmp_path, config, undrawn):
    tables = written(tmp_path, config)
    lines = tables["All sets: accuracy % (minus originals) · diversity (of directions) · copies"]
    assert lines[0] == "| method | MNIST digits | letters |"
    cell = "90.0 (+1.0) · 0.25 (0.20) · 3 of 50"
    assert f"| `flown` | {cell} | {cell} |" in lines
    one = "90.0 (+1.0) · - (-) · 3 of 1"
    assert f"| `aligned_mean` | {one} | {one} |" in lines


def test_a_confusion_has_a_line_a_set_shown(tmp_path, config, undrawn):
    tables = written(tmp_path, config)
    assert tables["Which set's networks came out, % of the support draws"] == [
        "| set shown | MNIST digits | letters |",
        "|---|---|---|",
        "| MNIST digits | 98.0 | 2.0 |",
        "| letters | 0.0 | 100.0 |",
    ]


def test_starts_have_means_and_deviations_over_runs(tmp_path, config, undrawn):
    tables = written(tmp_path, config)
    heading = "Initialisation: {}, accuracy % after fine-tuning, mean ± std over runs"
    lines = tables[heading.format("MNIST digits")]
    assert lines[0] == "| start | epoch 0 | epoch 1 | learning rate | remark |"
    assert lines[2].startswith("| `flown` | 90.0 ± 0.4 | 91.0 ± 0.2 | 0.004 |")
    # One run has no deviation.
    assert tables[heading.format("usps")][2].startswith("| `flown` | 70.0 | 80.0 | 0.004 |")


def test_the_screen_shows_networks_and_starts(capsys):
    report.screen(results())
    shown = capsys.readouterr().out
    for text in ("MNIST digits", "letters", "3 of 50", "90.0 ± 0.2", "+1.0", "epoch 1", "0.004"):
        assert text in shown
    assert "usps: accuracy % after fine-tuning" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_a_full_disk_is_told_in_a_sentence_and_leaves_no_mark_of_the_end(
    tmp_path, config, undrawn, monkeypatch
):
    def fails(path, data):
        if path.name == "report.html":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr(shared, "write_bytes", fails)
    with pytest.raises(UserError, match=r"report\.html: no space left"):
        written(tmp_path, config)
    assert (tmp_path / "results.md").exists() and not (tmp_path / "results.json").exists()


def test_remarks_are_of_the_sets_and_then_of_the_prior():
    of_sets = {"usps": ["It is small.", "It is grey."]}
    assert words.sentences(of_sets, None, {}) == ["usps: It is small.", "usps: It is grey."]
    assert words.sentences({}, "No prior.", {}) == ["No prior."]
