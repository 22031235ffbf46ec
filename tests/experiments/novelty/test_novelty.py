"""The audit as a command: copies are found in any order of their units, strangers are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import novelty
from flown_jax.models import layout
from flown_jax.networks import rivals
from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights import zoo
from flown_jax.weights.symmetries import permuted
from tests.experiments.reconstruct import little
from tests.weights import small

SPEC = little.SPEC
TRAIN = small.vectors(range(8), SPEC.size)
SHORT = ("--data=digits", "--images=60", "--matching-images=40")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoo") / "a")


def made(path, weights):
    """A zoo of these vectors."""
    zoo.create(path, SPEC, dataset="digits", recipe={})
    zoo.add(path, weights, small.rows(range(len(weights))))
    return path


def audited(folder, samples, work, *arguments):
    """Metric -> row of the samples, and all results."""
    novelty.main([str(folder), str(samples), *SHORT, f"--workdir={work}", *arguments])
    results = json.loads((work / "results.json").read_text())
    rows = {r["metric"]: r for r in results["rows"] if r["method"] == "samples"}
    return rows, results


def test_noise_and_other_orders_of_units_are_copies(folder, tmp_path, capsys):
    noise = rivals.noisy(0, TRAIN, 8, rivals.tensor_scales(SPEC, TRAIN), 0.05)
    noise = permuted(SPEC, noise, np.random.default_rng(0))
    rows, results = audited(folder, made(tmp_path / "b", noise), tmp_path / "run")
    assert rows["copies"]["value"] == rows["copies"]["n"] == 8
    assert "accuracy_others" not in rows and "accuracy_copies" in rows
    assert "8 of 8 samples are copies" in capsys.readouterr().out
    methods = {row["method"] for row in results["rows"]}
    assert methods == {"samples", "originals", "held_out", "noise_of_a_tenth", "average_of_7"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "what it cannot show" in page and "units of every pair were matched" in page
    assert (tmp_path / "run" / "figures" / "accuracy_against.png").stat().st_size > 10_000


def test_other_seeds_are_new_and_one_network_is_not_diverse(folder, tmp_path):
    strangers = made(tmp_path / "b", small.vectors(range(20, 28), SPEC.size))
    rows, _ = audited(folder, strangers, tmp_path / "new")
    assert rows["copies"]["value"] == 0 and rows["nearest"]["value"] > 0.8
    assert rows["diversity"]["value"] == pytest.approx(1, abs=0.2)
    average = np.repeat(TRAIN.mean(0, keepdims=True), 6, axis=0)
    rows, _ = audited(folder, made(tmp_path / "c", average), tmp_path / "one")
    assert rows["diversity"]["value"] == 0 and rows["duplicates"]["value"] == 5


def test_files_of_vectors_and_folders_of_state_dicts_are_read(folder, tmp_path):
    np.save(tmp_path / "b.npy", TRAIN[:3])
    rows, _ = audited(folder, tmp_path / "b.npy", tmp_path / "vectors")
    assert rows["copies"]["value"] == 3 and rows["nearest"]["value"] < 1e-3
    names = SPEC.module().state_dict_names()
    (tmp_path / "nets").mkdir()
    for i, vector in enumerate(TRAIN[:3]):
        leaves = dict(layout.leaves(SPEC.unflatten(vector)))
        state = {n: layout.to_torch(path, np.asarray(leaves[path])) for n, path in names.items()}
        write_state_dict(tmp_path / "nets" / f"{i}.pt", state)
    again, _ = audited(folder, tmp_path / "nets", tmp_path / "dicts")
    for metric in ("copies", "accuracy", "diversity"):
        assert again[metric]["value"] == pytest.approx(rows[metric]["value"], abs=1e-5)


def test_networks_that_are_not_finite_are_counted(folder, tmp_path, capsys):
    broken = small.vectors(range(20, 24), SPEC.size)
    broken[0, 0] = np.nan
    np.save(tmp_path / "b.npy", broken)
    rows, _ = audited(folder, tmp_path / "b.npy", tmp_path / "run")
    assert rows["not_finite"]["value"] == 1 and rows["accuracy_min"]["value"] == 0
    assert "1 of them not finite" in capsys.readouterr().out


def test_draws_are_of_named_seeds(folder, tmp_path):
    samples = made(tmp_path / "b", small.vectors(range(20, 28), SPEC.size))
    found = [
        audited(folder, samples, tmp_path / str(i), f"--seed={seed}", "--networks=4")[1]["rows"]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2]


def test_the_order_of_test_labels_moves_accuracies_alone(folder, tmp_path, monkeypatch):
    """Nothing of the audit is chosen by test images: with others the distances stay."""
    samples = made(tmp_path / "b", small.vectors(range(20, 26), SPEC.size))
    rows, _ = audited(folder, samples, tmp_path / "one")
    from flown_jax.data import image_sets

    load = image_sets.load

    def poisoned(name, split, data_dir=None):
        found = load(name, split, data_dir)
        if split == "test":
            object.__setattr__(found, "labels", 9 - found.labels)
        return found

    monkeypatch.setattr(image_sets, "load", poisoned)
    other, _ = audited(folder, samples, tmp_path / "two")
    for metric in ("nearest", "copies", "diversity", "direction_diversity", "length"):
        assert rows[metric]["value"] == other[metric]["value"]
    assert rows["accuracy"]["value"] != other["accuracy"]["value"]


@pytest.mark.parametrize(
    ("second", "arguments", "sentence"),
    [
        ("nowhere", (), "nowhere"),
        ("short.npy", (), "has an array of shape (2, 3), where a row of 216 values"),
        ("whole.npy", (), "has int64 values, where floating-point ones are wanted"),
        ("zoos/mnist_short", (), "is of other networks than"),
        ("self", ("--data=shapes",), "shapes"),
        ("self", ("--images=0",), "'0' is no whole number above 0"),
        ("self", ("--split=nowhere",), "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, second, arguments, sentence):
    np.save(tmp_path / "short.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "whole.npy", np.zeros((2, SPEC.size), int))
    path = {"self": folder}.get(second, tmp_path / second)
    path = second if second.startswith("zoos/") else path
    with pytest.raises(SystemExit) as ended:
        novelty.main([str(folder), str(path), *SHORT, f"--workdir={tmp_path / 'run'}", *arguments])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and sentence in lines[0], lines
    assert not (tmp_path / "run").exists()
