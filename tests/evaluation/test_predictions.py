"""Predictions on many tasks: their figures, and the rows that are made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation import classification, predictions
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
        unit="a draw",
        temperatures={"linear_probe": 1.0, "other": 2.0},
    )
    assert all((row["n"], row["over"], row["unit"]) == (12, "tasks", "a draw") for row in rows)
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
        predictions,
        references={"regression": "b", "caml": "c"},
        set_name="far",
        unit="u",
        table="t",
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


def tasks_of(rng, count, gap, query=24):
    """Predictions of two classes, right in `gap` fewer cases than they are sure of."""
    sure = rng.uniform(0.5, 1, (count, query))
    right = rng.uniform(size=sure.shape) < sure - gap(sure)
    first = np.arange(query) < query // 2  # of the first class
    of_first = np.where(right == first, sure, 1 - sure)
    return Prediction(np.log(np.stack([of_first, 1 - of_first], -1))[None])


def error_of(prediction):
    return classification.ece(prediction.log_probs, prediction.labels)


@pytest.mark.parametrize(
    ("gap", "exact"),
    [
        (lambda sure: 0 * sure, True),  # nothing but noise, which adds up
        (lambda sure: np.where(sure > 0.75, 0.1, -0.05), False),
        (lambda sure: 0.2 + 0 * sure, True),
    ],
)
def test_the_half_width_of_the_calibration_error_covers(gap, exact, monkeypatch):
    monkeypatch.setattr(predictions, "_DRAWS", 300)
    rng = np.random.default_rng(0)
    truth, times = error_of(tasks_of(rng, 20_000, gap)), 200
    found = [tasks_of(rng, 25, gap).ece() for _ in range(times)]
    share = np.mean([abs(error - truth) <= half for error, half in found])
    tolerance = 3.3 * (0.95 * 0.05 / times) ** 0.5
    assert share > 0.95 - tolerance
    assert share < 0.95 + tolerance or not exact


def test_one_task_has_no_half_width():
    one = Prediction(single(HEADS[0], QUERY).log_probs[:, :1])
    assert one.ece()[1] is None
    rows = rows_of({"a": one}, references={"b": "a"}, set_name="s", unit="u")
    assert all(row["ci95"] is None and row["n"] == 1 for row in rows)


@pytest.mark.parametrize("shape", [(12, 6, 3), (1, 12, 7, 3), (0, 12, 6, 3), (1, 12, 0, 3)])
def test_predictions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="with Q a multiple of n, not"):
        Prediction(np.zeros(shape))


def test_a_method_without_predictions_has_no_figure():
    """And does not score as the first class."""
    broken = np.log(np.full((1, 4, 6, 3), 1 / 3))
    broken[0, 2] = np.nan
    rows = rows_of({"broken": Prediction(broken)}, references={}, set_name="all", unit="u")
    assert [row["metric"] for row in rows] == ["accuracy", "nll", "ece"]
    assert all(np.isnan(row["value"]) for row in rows)
