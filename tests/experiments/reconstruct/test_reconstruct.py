"""Autoencoders of little zoos: what they are worth, a finished run, mistakes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments.one_zoo import Networks
from experiments.reconstruct import __main__ as reconstruct
from experiments.reconstruct.measure import rows
from flown_jax.errors import UserError
from flown_jax.training.stages import StageResult
from tests.experiments.reconstruct import little
from tests.layers.helpers import quick_jit

# Not all: compilation takes most of the time.
METHODS = ("vae_mlp", "graph", "pca")
SHORT = {"methods": METHODS, "evaluation__networks": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoo") / "little")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        reconstruct.run(little.config(folder, **SHORT), str(work))
    return work


def cells(work):
    results = json.loads((work / "results.json").read_text())
    assert all(row["over"] == "networks" and row["unit"] for row in results["rows"])
    return {(row["set"], row["method"], row["metric"]): row for row in results["rows"]}


def test_every_method_has_its_rows(finished):
    found = cells(finished)
    methods = {"originals", "mean", *METHODS}
    assert {method for _, method, _ in found} == methods
    # The latent has four numbers for eight networks, which PCA's best plane fits best.
    fits = {m: found["train", m, "reconstruction_r2"]["value"] for m in methods - {"originals"}}
    assert max(fits, key=fits.get) == "pca" and 0.4 < fits["pca"] < 1 and fits["mean"] == 0
    assert found["held_out", "graph", "reconstruction_r2"]["n"] == 2
    assert found["train", "originals", "accuracy"]["ci95"] > 0
    results = json.loads((finished / "results.json").read_text())
    assert (
        set(results["peaks_gib"]) == methods - {"originals", "mean"} == {*results["stage_seconds"]}
    )
    text = (finished / "results.md").read_text()
    assert "digits (8 networks) is a zoo of several seeds" in text
    assert "## Copies of training networks" in text and "| `graph` |" in text


def test_graphs_do_not_see_permutations(finished):
    found = cells(finished)
    plain, other = (found[s, "graph", "reconstruction_r2"]["value"] for s in ("train", "permuted"))
    assert other == pytest.approx(plain, abs=1e-4)
    plain, other = (found[s, "pca", "reconstruction_r2"]["value"] for s in ("train", "permuted"))
    assert other < plain - 0.3
    # They are the same functions.
    plain, other = (found[s, "originals", "accuracy"]["value"] for s in ("train", "permuted"))
    assert other == pytest.approx(plain, abs=1e-6)


def test_a_finished_run_is_shown_again(folder, finished, capsys):
    before = (finished / "results.json").stat().st_mtime_ns
    reconstruct.run(little.config(folder, **SHORT), str(finished))
    out = capsys.readouterr().out
    assert out.startswith("codec.encoder 'graph' reads networks without the order of their units")
    assert "Held-out networks" in out
    assert (finished / "results.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="stage vae_mlp .* choose a new --workdir"):
        reconstruct.run(little.config(folder, **SHORT, seed=1), str(finished))


def test_on_a_trajectory_the_mean_is_told_and_nothing_has_an_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "jit", quick_jit)
    folder = little.write(tmp_path / "zoo", states=True)
    config = little.config(folder, methods=("pca",), held_out_every=4)
    reconstruct.run(config, str(tmp_path / "run"))
    found = cells(tmp_path / "run")
    # The states lie on a line.
    assert found["held_out", "pca", "reconstruction_r2"]["value"] > 0.999
    assert all(row["ci95"] is None for row in found.values())
    text = (tmp_path / "run" / "results.md").read_text()
    mean = 100 * found["train", "mean", "accuracy"]["value"]
    assert (
        f"proves nothing on a trajectory: their mean, which a decoder gives that ignores its "
        f"latent, has {mean:.1f} %" in text
    )
    assert "one in 4." in text and "a zoo of several seeds" not in text


def test_differences_are_to_the_mlp():
    networks = Networks(
        little.SPEC, "digits", np.ones((3, 2)), np.ones((2, 2)), None, True, None, None
    )

    def result(**r2):
        accuracy = {name: np.array([0.5, 0.7]) for name in r2}
        return StageResult("", "", None, {"r2": r2, "accuracy": accuracy}, 0.0)

    measured = {
        "vae_mlp": result(train=0.5, held_out=0.4),
        "graph": result(train=0.4, held_out=0.6),
    }
    found = {(r["method"], r["set"], r["metric"]): r for r in rows(networks, measured)}
    metric = "reconstruction_r2_minus_vae_mlp"
    assert found["graph", "held_out", metric]["value"] == pytest.approx(0.2)
    assert found["graph", "train", metric]["value"] == pytest.approx(-0.1)
    assert ("vae_mlp", "train", metric) not in found
    assert found["graph", "train", "accuracy_std"]["value"] == pytest.approx(0.02**0.5)


@pytest.mark.parametrize(
    ("fields", "values", "sentence"),
    [
        ({}, {"zoo": "nowhere"}, "nowhere"),
        ({}, {"methods": ("vae",)}, "methods is .*each 'vae_mlp', 'graph'"),
        ({}, {"held_out_every": 1}, "held_out_every is 1; it must be a whole number from 2"),
        ({}, {"codec.graph.num_heads": 3}, "num_heads is 3; it must divide attention_dim"),
        ({}, {"codec.form": "token"}, "codec.form 'token' "),
        ({}, {"codec.recipe.warmup": 60}, "codec.recipe does not fit: warmup"),
        ({"split": "train"}, {}, "has 0 networks to hold out, of 2"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, tmp_path, fields, values, sentence):
    if fields:
        folder = little.write(tmp_path / "zoo", **fields)
    named = {name.replace(".", "__"): value for name, value in values.items()}
    with pytest.raises(UserError, match=sentence):
        reconstruct.run(little.config(named.pop("zoo", folder), **named), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
