"""Figures of what is read from weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flown_jax.evaluation.figures import new_figure, save_figure

_COLOURS = ("#d9822b", "#1a66b3", "#2e8b57", "#8e44ad", "#b03a48", "#7a8087")


def predicted_against_true(
    path: Path,
    truth: np.ndarray,
    epoch: np.ndarray,
    predictions: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Predicted accuracies against the true ones: a column a reader, a row a kind, a colour an
    epoch; the line is where they are equal.

    Args:
      truth, epoch: (N,). predictions: reader -> kind, as it is to be called -> (R, N), of which the
        first run is drawn.
    """
    kinds = list(next(iter(predictions.values())))
    size = (2.4 * len(predictions) + 0.6, 2.4 * len(kinds) + 0.5)
    figure, axes = new_figure(len(kinds), len(predictions), size)
    low, high = 100 * truth.min(), 100 * truth.max()
    margin = 0.15 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    for column, (method, of) in enumerate(predictions.items()):
        axes[0, column].set_title(method.replace("_", " "), fontsize=10)
        for axis, kind in zip(axes[:, column], kinds, strict=True):
            # What lies outside is drawn at the edge.
            shown = np.clip(100 * of[kind][0], *limits)
            axis.plot(limits, limits, color="black", lw=0.8, ls=":")
            for i, value in enumerate(np.unique(epoch)):
                here, colour = epoch == value, _COLOURS[i % len(_COLOURS)]
                style = {"ms": 4.5, "alpha": 0.7, "mew": 0, "color": colour}
                axis.plot(100 * truth[here], shown[here], "o", label=f"epoch {value}", **style)
            axis.set_xlim(*limits)
            axis.set_ylim(*limits)
            axis.set_aspect("equal")
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            if not column:
                axis.set_ylabel(f"{kind}\npredicted accuracy, %", fontsize=8)
            if kind == kinds[-1]:
                axis.set_xlabel("true accuracy, %", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False, loc="upper left", handletextpad=0.1)
    save_figure(figure, path)
