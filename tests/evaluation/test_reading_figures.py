"""Figures of what is read from weights."""

from __future__ import annotations

import numpy as np

from flown_jax.evaluation.reading_figures import predicted_against_true


def test_predictions_are_drawn_however_far_they_are(tmp_path):
    truth, epoch = np.linspace(0.3, 0.4, 6), np.array([1, 1, 1, 2, 2, 2])
    predictions = {"mlp": {"plain": truth[None], "permuted": np.array([[0, 1, 0.3, 0.4, 0, 1]])}}
    predicted_against_true(tmp_path / "figures" / "a.png", truth, epoch, predictions)
    assert (tmp_path / "figures" / "a.png").stat().st_size > 10_000
    predicted_against_true(
        tmp_path / "b.png", truth[:1], epoch[:1], {"mlp": {"plain": truth[None, :1]}}
    )
