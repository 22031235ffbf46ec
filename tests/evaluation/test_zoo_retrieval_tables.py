"""Rows and curves of starts that were trained on."""

from __future__ import annotations

import numpy as np

from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.zoo_retrieval_tables import start_curve, start_rows


def test_rows_and_curve_of_runs():
    measured = np.asarray([[0.1, 0.3, 0.2], [0.5, 0.7, 0.9]])
    line = start_curve((0, 5), measured)
    assert line["epochs"] == [0, 5]
    np.testing.assert_allclose(line["mean"], [0.2, 0.7])
    np.testing.assert_allclose(line["std"], [0.1, 0.2])
    first, last, rate = start_rows("flown", "usps", (0, 5), measured, 3e-4, "u")
    assert (first["metric"], last["metric"]) == ("accuracy_epoch_0", "accuracy_epoch_5")
    assert (last["value"], last["ci95"]) == interval(measured[1])
    assert rate == {
        "table": "initialise",
        "method": "flown",
        "set": "usps",
        "metric": "learning_rate",
        "value": 3e-4,
        "ci95": None,
        "n": 3,
        "over": "runs",
        "unit": "u",
    }


def test_one_run_has_no_interval():
    measured = np.asarray([[0.25]])
    assert start_curve((0,), measured)["std"] == [None]
    assert start_rows("flown", "usps", (0,), measured, 1e-3, "u")[0]["ci95"] is None
