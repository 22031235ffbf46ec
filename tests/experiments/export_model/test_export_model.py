"""A run's meta-model in a folder of its own: what it weighs, what its card says."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from experiments import command
from experiments.export_model import __main__ as export_model
from experiments.export_model import card as cards
from experiments.export_model import digits
from experiments.export_model.run import Run
from flown_jax import MetaModel
from flown_jax.files import sha256_of
from flown_jax.meta_model.build import build
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.stages import FORMAT
from flown_jax.training.trees import save_tree
from tests.few_shot import small
from tests.networks import model as whole

ABOUT = small.description()


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global ARRAYS
    ARRAYS = small.arrays(ABOUT)


def row(method: str, value: float) -> dict:
    return {
        "table": "5-way 1-shot",
        "method": method,
        "set": "in_distribution",
        "metric": "accuracy",
        "value": value,
        "ci95": 0.0123,
        "n": 20,
        "over": "tasks",
    }


@pytest.fixture
def workdir(tmp_path):
    """A finished run, as far as the command looks."""
    stage = tmp_path / "run" / "stages" / "model"
    stage.mkdir(parents=True)
    save_tree(stage / "outputs.safetensors", {"description": ABOUT, "arrays": ARRAYS})
    mark = sha256_of(stage / "outputs.safetensors")
    (stage / "stage.json").write_text(json.dumps({"format": FORMAT, "sha256": mark}))
    config = command.load_config("configs/fsl.py:tiny")
    config.flow.recipe.steps = 7
    config.seed = 3
    packages = {"jax": "1.2.3", "flax": "4.5.6"}
    results = {
        "experiment": "fewshot",
        "variant": "tiny",
        "seed": 3,
        "seconds": 61.0,
        "peak_memory_gib": 1.5,
        "titles": {"in_distribution": "New characters"},
        "environment": {"backend": "cpu", "cpu_available": 2, "packages": packages}
        | {"flown_jax": "0.1.0"},
        "config": plain_values(config),
        "rows": [row("linear_probe", 0.5), row("flown_ensemble", 0.625), row("ridge", 0.4)],
    }
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run"


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments.export_model", *arguments])
    export_model.main()


def test_the_folder_is_restored_and_its_card_has_the_runs_figures(
    monkeypatch, capsys, workdir, tmp_path
):
    monkeypatch.setattr(export_model, "accuracies", lambda *_: digits.Shown(0.75, 0.5, 10, 597))
    call(monkeypatch, str(workdir), f"--to={tmp_path}/made", "--bits=16")
    assert {p.name for p in (tmp_path / "made").iterdir()} == {
        "arrays.safetensors",
        "meta_model.json",
        "card.md",
    }
    assert "0.750 right by the run's meta-model, 0.500 by the stored" in capsys.readouterr().out
    card = (tmp_path / "made" / "card.md").read_text()
    line = "python -m experiments.fewshot --config=configs/fsl.py:tiny"
    assert re.search(rf"{re.escape(line)}.* --config\.seed=3\b", card)
    assert "--config.flow.recipe.steps=7" in card and card.count("--config.") == 2
    assert "| `flown_ensemble` | 62.5 ± 1.2 |\n| `linear_probe` | 50.0 ± 1.2 |" in card
    assert "ridge" not in card and "New characters" in card and "over 20 tasks" in card
    assert "61 s of work and at most 1.50 GiB on cpu (2 cores), jax 1.2.3" in card
    assert "half-precision" in card and "50.0 % of 597 test images" in card and "75.0 %" in card
    assert "## Limits" in card
    made = MetaModel.restore(tmp_path / "made")
    assert made.description == ABOUT


def test_without_bits_the_networks_are_the_runs(monkeypatch, workdir, tmp_path):
    call(monkeypatch, str(workdir), f"--to={tmp_path}/made")
    images = np.random.default_rng(0).integers(0, 256, (4, small.SIDE, small.SIDE), np.uint8)
    first, second = (
        MetaModel.restore(folder).generate(images, list("abab"), samples=2)
        for folder in (workdir, tmp_path / "made")
    )
    np.testing.assert_array_equal(first.heads, second.heads)
    assert "handwritten digits (" not in (tmp_path / "made" / "card.md").read_text()


def test_digits_measure_models_that_take_them(monkeypatch):
    heads = MetaModel(build(ABOUT, ARRAYS), ARRAYS)
    assert digits.accuracies(heads, heads) is None  # images of 16 pixels
    monkeypatch.setattr(digits, "SAMPLES", 2)
    model = whole.meta_model()
    found = digits.accuracies(model, model)
    assert found is not None and found.classes == 3 and found.run == found.stored
    images, labels = digits.support(4)
    assert len(images) == 20 and labels == sorted(labels) and set(labels) == set(range(4))
    assert digits.accuracies(whole.meta_model(conditional=False), model) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no results.json: run its experiment to its end first"),
        ("{", "is damaged: cannot read"),
        ("{}", "is not the results of a run: 'environment' is missing"),
    ],
)
def test_a_run_without_results_is_refused(
    monkeypatch, capsys, workdir, tmp_path, content, sentence
):
    (workdir / "results.json").unlink()
    if content is not None:
        (workdir / "results.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, str(workdir), f"--to={tmp_path}/made")
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_card_of_whole_networks_says_how_far_apart_they_are_and_what_is_a_copy():
    def of(name, metric, value, table="retrieval"):
        return row("flown", value) | {"metric": metric, "set": name, "table": table, "n": 24}

    rows = [of("digits", "diversity", 0.354), of("latin", "diversity", 0.426)]
    rows += [of("digits", "length", 1.5), of("latin", "length", 1.502), of("digits", "copies", 0)]
    rows += [of("latin", "copies", 3), of("latin", "diversity", 7.0, table="unseen")]
    run = Run("command", "date", "machine", {"experiment": "retrieval", "rows": rows})
    assert cards.apart(run) == (
        "`flown` where the zoo's networks have 1: diversity 0.35 to 0.43, length 1.50; "
        "3 copies of 48."
    )
    for results in ({"rows": []}, {"rows": rows, "experiment": "fewshot"}):
        assert cards.apart(Run("", "", "", {"experiment": "retrieval", **results})) == ""
