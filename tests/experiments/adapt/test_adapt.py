"""A finished run of adaptation."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments.adapt import __main__ as adapt
from flown_jax import MetaModel
from tests.experiments.adapt import little
from tests.layers.helpers import quick_jit

NAME = "digits_latin"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoos"))


@pytest.fixture(scope="module")
def finished(zoo, tmp_path_factory):
    work = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        adapt.run(little.config(zoo), str(work))
    return work


@pytest.fixture(scope="module")
def cells(finished):
    results = json.loads((finished / "results.json").read_text())
    return {(r["method"], r["metric"]): r["value"] for r in results["rows"]}


def test_all_ways_stand_in_one_table(cells):
    methods = {method for method, _ in cells}
    adapted = {"velocity", "residual", "decoder", "decoder_alone", "adjoint_matching"}
    fine_tuned = {f"plain_{n}" for n in ("generated", "kaiming", "mean", "generated_3")}
    beside = {"static", "members", "refined", "reward_weighted", "displaced"}
    beside |= {f"mean_with_deviations_of_{n}" for n in ("residual", "decoder")}
    few = {"head_alone", "plain_generated", "plain_mean", "velocity", "residual", "decoder"}
    assert methods == adapted | fine_tuned | beside | {f"{n}_20_images" for n in few}
    for metric in ("accuracy", "accuracy_vote", "diversity", "direction_diversity"):
        assert ("decoder", metric) in cells
    assert cells["decoder", "seconds_training"] > 0
    assert cells["plain_kaiming", "seconds_sampling"] > 0


def test_a_residual_keeps_the_differences(cells):
    assert cells["members", "diversity"] > 0
    unit = cells["static", "diversity"]
    assert cells["residual", "diversity"] == pytest.approx(unit, rel=0.6)


def test_the_adapted_generator_generates(finished):
    model = MetaModel.restore(finished)
    networks = model.generate(samples=3)
    assert networks.weights.shape == (3, little.SPEC.size)
    assert (
        len(set(networks.classes)) == 10 and "adapted to latin" in model.description["trained_on"]
    )
    np.testing.assert_allclose(networks.predict(np.zeros((2, 9, 9), np.uint8)).sum(1), 1, atol=1e-5)


def test_the_cut_is_a_table(finished):
    results = json.loads((finished / "results.json").read_text())
    rows = results["cuts"][NAME]["rows"]
    assert [row["t"] for row in rows] == [0.0, 0.5] and rows[0]["cosine"] == pytest.approx(1)
    assert 0 < rows[1]["cosine"] < 1 and all(row["solver_seconds"] > 0 for row in rows)
    assert len(results["cuts"][NAME]["norms"]) == 4
    assert all(0 <= accuracy <= 1 for accuracy in results["cuts"][NAME]["accuracies"])
    assert len(results["cuts"][NAME]["accuracies"]) == 2
    text = (finished / "results.md").read_text()
    assert "the gradient cut" in text and "| steps | t' |" in text


def test_a_finished_run_is_shown_again(zoo, finished):
    before = (finished / "results.json").stat().st_mtime_ns
    adapt.run(little.config(zoo), str(finished))
    assert (finished / "results.json").stat().st_mtime_ns == before
