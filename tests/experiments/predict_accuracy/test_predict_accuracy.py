"""Readers of a little zoo: what they read, where they stand after a stop, mistakes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments.predict_accuracy import __main__ as predict_accuracy
from experiments.predict_accuracy import measure, readers, report
from experiments.predict_accuracy.networks import Networks, read
from flown_jax.errors import UserError
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.weights import zoo
from tests.experiments.predict_accuracy import little
from tests.layers.helpers import quick_jit

PIXEL = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoo") / "little")


def config(folder, **values):
    """One backbone is enough: compilation takes most of the time."""
    return little.config(folder, **{"encoder__backbones": ("transformer",)} | values)


def draw(path, truth, epoch, predictions):
    """A quick picture."""
    assert list(predictions) == ["epoch", "statistics", "mlp", "mlp_permuted", "graph_transformer"]
    kinds = list(predictions["mlp"])
    assert kinds[1] == "the same, units permuted"
    assert truth.shape == epoch.shape == predictions["mlp"][kinds[1]][0].shape
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PIXEL)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        patch.setattr(report, "predicted_against_true", draw)
        predict_accuracy.run(config(folder), str(work))
    return work


def cells(work):
    results = json.loads((work / "results.json").read_text())
    assert all(row["over"] == "networks" and row["unit"] for row in results["rows"])
    return {(row["set"], row["method"], row["metric"]): row for row in results["rows"]}


def test_every_reader_has_its_rows(finished):
    found = cells(finished)
    assert found["learn", "statistics", "kendall"]["value"] > 0.8
    methods = {method for _, method, _ in found}
    assert methods == {"epoch", "statistics", "mlp", "mlp_permuted", "graph_transformer"}
    assert {name for name, *_ in found} == {"all_epochs", "within_epochs", "last_epoch", "learn"}
    # Four held-out networks, whatever states of them there are; an epoch tells nothing in itself.
    assert {row["n"] for (name, *_), row in found.items() if name != "learn"} == {4}
    assert ("last_epoch", "epoch", "kendall") not in found
    assert ("all_epochs", "mlp", "kendall_minus_statistics") in found
    text = (finished / "results.md").read_text()
    assert "11 networks (22 states)" in text and "4 networks (8 states) that the zoo" in text
    assert (finished / "report.html").read_text().count("<figcaption>") == 2
    assert ("last_epoch", "mlp", "r2") not in found and ("learn", "mlp", "r2") in found


def test_what_does_not_know_an_order_reads_permuted_units_alike(finished):
    found = cells(finished)
    for method in ("statistics", "graph_transformer"):
        assert found["learn", method, "kendall_itself"]["value"] > 0.98, method
    assert found["learn", "mlp", "kendall_itself"]["value"] < 0.95


def test_a_finished_run_is_shown_again(folder, finished, capsys, monkeypatch):
    before = (finished / "results.json").stat().st_mtime_ns
    predict_accuracy.run(config(folder), str(finished))
    assert "Last epoch" in capsys.readouterr().out
    assert (finished / "results.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="stage mlp .* choose a new --workdir"):
        predict_accuracy.run(config(folder, mlp__sizes__hidden=(8,)), str(finished))


def test_a_killed_run_ends_with_the_same_rows(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "jit", quick_jit)
    monkeypatch.setattr(predict_accuracy, "write", lambda *args: None)
    monkeypatch.setattr(predict_accuracy, "screen", lambda results: shown.append(results["rows"]))
    shown, save, values = [], Checkpoints.save, config(folder, encoder__backbones=())
    values.mlp.recipe.save_every = 3
    predict_accuracy.run(values, str(tmp_path / "whole"))

    def save_and_die(self, step, tree):
        save(self, step, tree)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            predict_accuracy.run(values, str(tmp_path / "killed"))
    predict_accuracy.run(values, str(tmp_path / "killed"))
    assert shown[0] == shown[1]


def test_networks_are_split_by_their_seeds(folder):
    parts = read(little.config(folder))
    own = [set(part.network) for part in (parts.learn, parts.choose, parts.test)]
    assert [len(part) for part in own] == [11, 3, 4] and len(set.union(*own)) == 18
    assert all(len(part.epoch) == 2 * part.count for part in (parts.learn, parts.choose))
    late = read(little.config(folder, epochs=(2,), label="validation_accuracy"))
    assert set(late.test.epoch) == {2} and len(late.test.epoch) == 4
    np.testing.assert_allclose(
        late.test.accuracy, parts.test.accuracy[parts.test.epoch == 2] - 0.01
    )


def test_a_zoo_of_one_epoch_has_one_table_of_held_out_networks():
    networks = Networks(np.zeros((3, 2)), np.array([0.1, 0.2, 0.3]), np.ones(3), np.arange(3))
    one = {"plain": np.array([[0.1, 0.2, 0.3]]), "permuted": np.array([[0.3, 0.2, 0.1]])}
    found = measure.rows("test", networks, {"statistics": one, "mlp": one})
    assert {row["set"] for row in found} == {"all_epochs"}
    values = {(row["method"], row["metric"]): row["value"] for row in found}
    assert values["mlp", "kendall"] == 1 and values["mlp", "kendall_permuted"] == -1
    assert values["mlp", "kendall_itself"] == -1 and values["mlp", "kendall_minus_statistics"] == 0


def test_accuracies_without_log_odds_are_taken_from_near_by():
    assert np.isfinite(readers.log_odds(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize(
    ("fields", "values", "sentence"),
    [
        ({}, {"zoo": "nowhere"}, "nowhere"),
        ({}, {"epochs": (3,)}, r"has no networks of epochs \[3\]"),
        ({}, {"validation_share": 0.05}, "leaves 1 networks to choose by; 2 are needed"),
        ({}, {"label": "train_accuracy"}, "label is 'train_accuracy'; it must be"),
        ({}, {"encoder.backbones": ("gnn",)}, "each 'transformer' or 'pna'"),
        ({}, {"mlp.recipe.warmup": 60}, "mlp.recipe does not fit: warmup"),
        ({}, {"encoder.graph.num_heads": 3}, "num_heads is 3; it must divide"),
        ({"test_accuracy": None}, {}, "does not say the test_accuracy of 36 of its 36 networks"),
        ({"split": "train"}, {}, "leaves 0 networks to be tested on"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, tmp_path, fields, values, sentence):
    if fields:
        folder = little.write(tmp_path / "zoo", **fields)
    named = {name.replace(".", "__"): value for name, value in values.items()}
    with pytest.raises(UserError, match=sentence):
        predict_accuracy.run(
            little.config(named.pop("zoo", folder), **named), str(tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()


def test_held_out_states_of_known_networks_are_no_test(folder, tmp_path):
    zoo.create(tmp_path / "zoo", little.SPEC, dataset="digits", recipe={})
    for epoch, split in ((1, "train"), (2, "held_out")):
        zoo.add(tmp_path / "zoo", *little.rows(epoch, split=split))
    with pytest.raises(UserError, match="holds out states of 18 of the networks that are learned"):
        read(little.config(tmp_path / "zoo"))
