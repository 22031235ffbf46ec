"""Predictions on many tasks: their figures, and the rows that are made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation.predictions import Prediction, rows_of
from flown_jax.few_shot.evaluation import single
from tests.few_shot import small

TABLE = small.table(tasks=12)
QUERY, SUPPORT = jnp.asarray(TABLE.query()), jnp.asarray(TABLE.support())
HEADS = jax.random.normal(jax.random.key(0), (6, 12, small.WAY, small.WIDTH + 1))


def test_rows_are_tidy_and_paired_differences_are_paired():
    predictions = {"linear_probe": single(HEADS[0], QUERY), "other": single(HEADS[1], QUERY)}
    rows = rows_of(
        predictions,
        references={"probe": "linear_probe"},
        set_name="in_distribution",
        temperatures={"linear_probe": 1.0, "other": 2.0},
    )
    keys = {"table", "method", "set", "metric", "value", "ci95", "n"}
    assert all(set(row) == keys and row["n"] == 12 for row in rows)
    figures = {(row["method"], row["metric"]): row for row in rows}
    assert {metric for _, metric in figures} == {
        "accuracy",
        "accuracy_minus_probe",
        "nll",
        "nll_tempered",
        "ece",
        "ece_tempered",
    }
    assert figures["linear_probe", "accuracy_minus_probe"]["value"] == 0
    assert figures["linear_probe", "accuracy_minus_probe"]["ci95"] == 0
    difference = predictions["other"].accuracy() - predictions["linear_probe"].accuracy()
    assert figures["other", "accuracy_minus_probe"]["value"] == pytest.approx(difference.mean())
    same, tempered = figures["linear_probe", "nll"], figures["linear_probe", "nll_tempered"]
    assert tempered["value"] == pytest.approx(same["value"], rel=1e-6)


def test_the_likelihood_is_compared_with_the_regression_alone():
    predictions = {name: single(HEADS[i], QUERY) for i, name in enumerate(("a", "b", "c"))}
    rows = rows_of(
        predictions, references={"regression": "b", "caml": "c"}, set_name="far", table="t"
    )
    figures = {(row["method"], row["metric"]): row for row in rows}
    assert {metric for _, metric in figures} == {
        "accuracy",
        "accuracy_minus_regression",
        "accuracy_minus_caml",
        "nll",
        "nll_minus_regression",
        "ece",
    }
    difference = predictions["a"].nll() - predictions["b"].nll()
    found = figures["a", "nll_minus_regression"]
    assert found["value"] == pytest.approx(difference.mean())
    # Paired: of the differences, not of two intervals; Student's t of 11 degrees of freedom.
    half = 2.201 * difference.std(ddof=1) / len(difference) ** 0.5
    assert found["ci95"] == pytest.approx(half, rel=1e-3)
    own = figures["b", "nll_minus_regression"]
    assert own["value"] == own["ci95"] == 0
    assert {(row["table"], row["set"]) for row in rows} == {("t", "far")}


def test_the_fitted_temperature_mends_overconfidence():
    overconfident = single(HEADS[0] * 20, QUERY)
    mended = overconfident.tempered(overconfident.temperature())
    assert mended.nll().mean() < overconfident.nll().mean()
    np.testing.assert_array_equal(mended.accuracy(), overconfident.accuracy())


def test_chance_is_one_in_n_and_calibrated():
    uniform = Prediction(np.full((1, 12, 12, small.WAY), -np.log(small.WAY)))
    np.testing.assert_allclose(uniform.accuracy(), 1 / small.WAY)
    assert uniform.ece()[0] == pytest.approx(0, abs=1e-9)
