"""Figures of an audit: accuracy of every sample against its novelty and its diversity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.evaluation.figures import new_figure, save_figure
from flown_jax.evaluation.zoo_retrieval_figures import stretched

FAMILIES = ("generator", "reconstruction", "no model", "networks")
# Of colours that are told apart; what is no model is drawn hollow, the zoo's own black.
_COLOURS = ("#1a66b3", "#d9822b", "#2e8b57", "#8e44ad", "#b03a48", "#17a2b8", "#b8a000", "#e377c2")
_HOLLOW = ("#5f6870", "#a0642c", "#4a7c59", "#7a5c99", "#a05a63", "#3f7f8c", "#8a7f2a", "#444444")
_MARKS = {
    "generator": ("o", "X", "P"),
    "reconstruction": ("P", "X"),
    "no model": ("s", "^", "v", "D", "p", "h"),
    "networks": ("o", "D", "s", "*"),
}
_ZOO = ("#111111", "#7a7a7a", "#b0b0b0")
_NEAR = 0.1  # below, an axis over orders of magnitude is even
_WIDE = 8.0  # largest over median value from which an axis covers orders of magnitude
_PANELS = {
    "nearest": "distance to the nearest training network, in tau",
    "diversity": "mean distance to the other samples / of two training networks",
}


def accuracy_against(
    path: Path,
    samples: Mapping[str, Mapping[str, np.ndarray]],
    families: Mapping[str, str],
    *,
    title: str = "",
    names: Mapping[str, str] | None = None,
) -> None:
    """Accuracy against novelty and against diversity, one point a sample, a panel each.

    The large mark of a group is at its medians. Accuracies are spread near the median of the first
    group of networks. An axis over orders of magnitude is logarithmic above .1. Dotted: one
    tau, and the diversity of the zoo; grey: copies, below half a tau. Samples without a distance
    are left out.

    Args:
      path: PNG file.
      samples: group -> "accuracy" (shares), "nearest" and "diversity", (S,) each, as
        `audit.Audit.samples` has them.
      families: group -> "generator" (filled, in colours), "reconstruction" (pluses), "no model"
        (hollow) or "networks" (black and greys: the zoo's, held-out and fresh ones).
      names: group -> its words in the legend.
    Raises:
      UserError: no groups, or a group without a family.
    """
    for group in samples:
        if families.get(group) not in FAMILIES:
            raise UserError(
                f"group {group!r} of the figure has family {families.get(group)!r}, not one of "
                f"{', '.join(FAMILIES)}."
            )
    if not samples:
        raise UserError("a figure of samples needs a group of them.")
    centre = _centre(samples, families)
    figure, axes = new_figure(1, 2, (12.5, 5.6 + 0.07 * len(samples)))
    handles: list[Any] = []
    accuracies = [100 * np.asarray(s["accuracy"], float) - centre for s in samples.values()]
    for axis, (key, words) in zip(axes[0], _PANELS.items(), strict=True):
        shown = []
        for group, style in _styles(samples, families).items():
            of = samples[group]
            x, y = np.asarray(of[key], float), 100 * np.asarray(of["accuracy"], float) - centre
            some = np.isfinite(x) & np.isfinite(y)
            label = (names or {}).get(group, group.replace("_", " "))
            if key == "nearest":
                handles.append(_mark(axis, [], [], style, 8.0, 1.0, label))
            if not some.any():
                continue
            shown.append(x[some])
            _mark(axis, x[some], y[some], style, 4.0, 0.45)
            _mark(axis, [np.median(x[some])], [np.median(y[some])], style, 11.0, 1.0)
        stretched(axis, np.concatenate(accuracies).tolist(), centre)
        _across(axis, np.concatenate(shown) if shown else np.zeros(1))
        axis.axvline(1.0, color="black", lw=0.9, ls=":", zorder=0)
        axis.axhline(0.0, color="black", lw=0.9, ls=":", zorder=0)
        if key == "nearest":
            axis.axvspan(axis.get_xlim()[0], 0.5, color="#000000", alpha=0.06, lw=0, zorder=0)
            top = axis.get_xaxis_transform()
            axis.text(0.5, 0.99, "copies ", transform=top, ha="right", va="top", fontsize=9)
        axis.set_xlabel(words)
        axis.set_ylabel("accuracy, % (spread near the originals)")
        axis.grid(alpha=0.25)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
    save_figure(figure, path)


def _centre(samples: Mapping[str, Mapping[str, np.ndarray]], families: Mapping[str, str]) -> float:
    zoo = [group for group in samples if families[group] == "networks"] or list(samples)
    return 100 * float(np.median(np.asarray(samples[zoo[0]]["accuracy"], float)))


def _styles(samples: Mapping[str, Any], families: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Group -> colour, mark and filling; networks are drawn last, above the others."""
    palettes = dict(zip(FAMILIES, (_COLOURS, _COLOURS, _HOLLOW, _ZOO), strict=True))
    counts = dict.fromkeys(FAMILIES, 0)
    found = {}
    for group in sorted(samples, key=lambda g: FAMILIES.index(families[g])):
        family = families[group]
        i, colours, marks = counts[family], palettes[family], _MARKS[family]
        counts[family] += 1
        turn = i if family in ("no model", "networks") else i // len(colours)
        found[group] = {
            "color": colours[i % len(colours)],
            "marker": marks[turn % len(marks)],
            "hollow": family == "no model",
        }
    return found


def _mark(
    axis: Any, x: Any, y: Any, style: Mapping[str, Any], size: float, alpha: float, label: str = ""
) -> Any:
    colour, hollow = style["color"], style["hollow"]
    edge: dict[str, Any] = {"mfc": colour, "mec": "white", "mew": 0.9 if size > 5 else 0.0}
    if hollow:
        edge = {
            "mfc": "white" if size > 5 else "none",
            "mec": colour,
            "mew": 1.8 if size > 5 else 0.9,
        }
    (line,) = axis.plot(
        x, y, ls="", marker=style["marker"], ms=size, alpha=alpha, zorder=2 + (size > 5), **edge
    )
    line.set_label(label or f"_{id(line)}")
    return line


def _across(axis: Any, values: np.ndarray) -> None:
    """Even, or logarithmic above a tenth where values cover orders of magnitude."""
    far = max(1.0, float(values.max()))
    if far > _WIDE * max(1.0, float(np.median(values))):
        axis.set_xscale("symlog", linthresh=_NEAR, linscale=0.6)
        axis.set_xlim(-0.02, 1.6 * far)
        ticks = [t for t in (0, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 1e4, 1e5) if t <= 1.6 * far]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
    else:
        axis.set_xlim(-0.04 * far, 1.08 * far)
