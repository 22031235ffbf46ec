"""Figures of generated networks: accuracy against diversity, confusion, fine-tuning, losses.

Rows are tidy, as `networks.rows_of` gives them; `sets` is set -> title everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.evaluation.figures import new_figure, save_figure
from flown_jax.evaluation.labels import place_labels
from flown_jax.evaluation.tables import Row

_OURS, _RIVAL, _ZOO = "#1a66b3", "#c96a12", "#222222"
_SIMPLE = "#7a8087"
_KINDS = {"ours": _OURS, "learned": _RIVAL, "zoo": _ZOO, "simple": _SIMPLE}
_COPIES = 1 / 24  # share of copies from which a method counts as copying
_NEAR = 3.0  # points around the originals within which the axis of accuracies is even
_STEPS = (1, 2, 5, 10, 20, 40, 80)  # ticks, in points from the originals
_WHAT = {"diversity": "distance", "direction_diversity": "distance of the directions"}
_LINES = ("#1a66b3", "#c96a12", "#2e8b57", "#8e44ad", "#b03a48", "#7a8087", "#b8a000", "#17a2b8")
_STYLES = ("-", "--", "-.", ":")


def accuracy_against_diversity(
    path: Path,
    rows: Sequence[Row],
    sets: Mapping[str, str],
    table: str = "retrieval",
    original: str = "originals",
    metric: str = "diversity",
    kinds: Mapping[str, str] | None = None,
    level: str = "mean of the originals",
) -> None:
    """Mean accuracy of every method against its diversity, a panel a set.

    Accuracies are spread near the mean of the originals, a dotted line. A method of one network
    stands at diversity 0; a method of which more than one network in 24 is a copy is a cross.

    Args:
      original: the row around whose accuracy the others are spread. level: what it is in words.
      metric: `diversity`, or `direction_diversity`, which no length can buy.
      kinds: method -> `ours`, `learned`, `zoo` or `simple`; None to go by names.
    """
    figure, panels = _grid(len(sets), (6.1, 4.9))
    drawn = []
    for axis, (name, title) in zip(panels, sets.items(), strict=True):
        of = {
            (row["method"], row["metric"]): row
            for row in rows
            if row["set"] == name and row["table"] == table
        }
        methods = [method for method, metric in of if metric == "accuracy"]
        centre = 100 * of[original, "accuracy"]["value"] if original in methods else 0.0
        points = []
        for method in methods:
            diversity = of.get((method, metric), {"value": 0.0})["value"]
            accuracy = 100 * of[method, "accuracy"]["value"] - centre
            copied = method != original and _copied(of.get((method, "copies")))
            tone = colour(method) if kinds is None else _KINDS[kinds[method]]
            style: dict[str, Any] = {"marker": "X" if copied else "o", "ms": 8 if copied else 7}
            axis.plot(diversity, accuracy, color=tone, mec="white", mew=0.6, **style)
            points.append((diversity, accuracy, method.replace("_", " "), tone))
        axis.axhline(0, color="black", lw=0.9, ls=":", zorder=0)
        stretched(axis, [y for _, y, *_ in points], centre)
        far = max([1.0, *(x for x, *_ in points)])
        axis.set_xlim(-0.06 * far, 1.12 * far)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel(f"diversity: {_WHAT[metric]} of two samples / of two training networks")
        axis.set_ylabel("accuracy, % (spread near the dotted line)")
        axis.grid(alpha=0.25)
        drawn.append((axis, points))
    _legend(figure, level)
    figure.canvas.draw()  # labels are placed where the panels have come to lie
    for axis, points in drawn:
        place_labels(figure, axis, points, level=0.0)
    save_figure(figure, path)


def confusion(
    path: Path, shares: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]
) -> None:
    """Which set's networks came out for which set that was shown, as a heat map in percent.

    Args:
      shares: set shown -> set that came out -> share of the support draws.
      titles: set -> title; a set without one has its name.
    """
    columns = list(dict.fromkeys(name for of in shares.values() for name in of))
    matrix = 100 * np.array([[of.get(c, 0.0) for c in columns] for of in shares.values()])
    size = (2.6 + 1.05 * len(columns), 1.7 + 0.62 * len(shares))
    figure, axes = new_figure(1, 1, size)
    axis = axes[0, 0]
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        text = f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
        tone = "white" if value > 55 else "black"
        axis.text(j, i, text, ha="center", va="center", color=tone, fontsize=11)
    names = [_title(titles, c) for c in columns]
    axis.set_xticks(range(len(columns)), names, rotation=20, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(shares)), [_title(titles, s) for s in shares])
    axis.set_xlabel("networks that came out, % of the support draws")
    axis.set_ylabel("set shown")
    save_figure(figure, path)


def fine_tuning(
    path: Path,
    curves: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    titles: Mapping[str, str],
    levels: Mapping[str, float] | None = None,
) -> None:
    """Accuracy over epochs of fine-tuning, a panel a set, a line a start.

    Args:
      curves: set -> start -> {"epochs", "mean", "std"}; accuracies as shares.
      levels: set -> accuracy of the zoo's own networks, a dotted line.
    """
    figure, panels = _grid(len(curves), (4.7, 3.7))
    starts = list(dict.fromkeys(start for of in curves.values() for start in of))
    handles: dict[str, Any] = {}
    for axis, (name, of_start) in zip(panels, curves.items(), strict=True):
        epochs = sorted({epoch for of in of_start.values() for epoch in of["epochs"]})
        for start, of in of_start.items():
            i = starts.index(start)
            mean, std = (100 * np.asarray(of[key], np.float64) for key in ("mean", "std"))
            x, line = of["epochs"], _LINES[i % len(_LINES)]
            width = 2.4 if start.startswith("flown") else 1.5
            style = _STYLES[i // len(_LINES) % len(_STYLES)]
            (handles[start],) = axis.plot(
                x, mean, color=line, lw=width, ls=style, marker="o", ms=4, label=_words(start)
            )
            axis.fill_between(x, mean - std, mean + std, color=line, alpha=0.15, lw=0)
        if name in (levels or {}):
            height = 100 * (levels or {})[name]
            label = "the zoo's own networks"
            handles[label] = axis.axhline(height, color="black", lw=0.9, ls=":", label=label)
        _log1p_axis(axis, epochs[-1])
        axis.set_xticks(epochs, [str(epoch) for epoch in epochs])
        axis.set_title(_title(titles, name), fontsize=11)
        axis.set_xlabel("epochs of fine-tuning")
        axis.set_ylabel("test accuracy, %")
        axis.grid(alpha=0.3)
    _below(figure, list(handles.values()), 2.2)
    save_figure(figure, path)


def losses(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Training losses over steps (the paper's Figure 2); `curves` has "steps" and a line each."""
    figure, axes = new_figure(1, 1, (6.4, 4.0))
    axis = axes[0, 0]
    for i, (name, values) in enumerate((k, v) for k, v in curves.items() if k != "steps"):
        axis.plot(curves["steps"], values, color=_LINES[i % len(_LINES)], label=_words(name))
    axis.set_yscale("log")
    axis.set_xlabel("training step of the flow")
    axis.set_ylabel("loss of the flow")
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3, which="both")
    save_figure(figure, path)


def accuracy_strips(
    path: Path,
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    titles: Mapping[str, str],
) -> None:
    """The accuracy of every network as a point, a panel a set, a strip a method; ticks: means.

    Args:
      accuracies: set -> method -> shares.
    """
    most = max(len(of) for of in accuracies.values())
    figure, panels = _grid(len(accuracies), (5.8, 1.3 + 0.5 * most))
    for axis, (name, of_method) in zip(panels, accuracies.items(), strict=True):
        for place, (method, values) in enumerate(of_method.items()):
            shown = 100 * np.asarray(values, np.float64)
            across = place + np.random.default_rng(0).uniform(-0.22, 0.22, len(shown))
            axis.plot(shown, across, "o", ms=4, mew=0, alpha=0.5, color=colour(method))
            axis.vlines(shown.mean(), place - 0.34, place + 0.34, color="black", lw=1.8)
        axis.set_yticks(range(len(of_method)), [_words(m) for m in of_method])
        axis.set_ylim(len(of_method) - 0.5, -0.5)
        axis.set_title(_title(titles, name), fontsize=11)
        axis.set_xlabel("test accuracy of a network, %")
        axis.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def colour(method: str) -> str:
    """Of a method's marks: ours, the zoo's own, other learned ones, simple ones."""
    if method.startswith("flown"):
        return _OURS
    if method in ("originals", "held_out"):
        return _ZOO
    learned = method.endswith("_trained") or method in ("kde", "pca", "ddpm")
    return _RIVAL if learned else _SIMPLE


def _grid(count: int, panel: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure and so many panels of the size, in two columns (three from five on)."""
    columns = min(count, 2 if count <= 4 else 3)
    lines = -(-count // columns)
    figure, axes = new_figure(lines, columns, (panel[0] * columns, panel[1] * lines))
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _legend(figure: Any, level: str) -> None:
    """What colours and marks of `accuracy_against_diversity` mean."""
    from matplotlib.lines import Line2D

    marks = [
        ("the zoo's recipe", _ZOO, "o"),
        ("this experiment's model", _OURS, "o"),
        ("others that learn", _RIVAL, "o"),
        ("nothing learned", _SIMPLE, "o"),
        ("more than 1 network in 24 is a copy", _SIMPLE, "X"),
    ]
    handles = [Line2D([], [], color=c, marker=m, ls="", ms=7, label=text) for text, c, m in marks]
    handles.append(Line2D([], [], color="black", lw=0.9, ls=":", label=level))
    _below(figure, handles, 2.9)


def _below(figure: Any, handles: Sequence[Any], width: float) -> None:
    """A legend below the panels with entries of the width in inches."""
    columns = max(1, int(figure.get_size_inches()[0] / width))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9.5)


def _log1p_axis(axis: Any, last: float) -> None:
    """Epochs from 0 on, the first ones apart."""
    margin = 0.05 * np.log1p(max(last, 1))
    # Limits that the scale has no logarithm for would leave the panel empty.
    axis.set_xlim(np.expm1(-margin), np.expm1(np.log1p(max(last, 1)) + margin))
    axis.set_xscale("function", functions=(_log1p, np.expm1))
    axis.set_xlim(np.expm1(-margin), np.expm1(np.log1p(max(last, 1)) + margin))


def _log1p(x: Any) -> np.ndarray:
    return np.log1p(np.maximum(x, -0.999))


def stretched(axis: Any, differences: Sequence[float], centre: float) -> None:
    """Points from the originals on an axis that is even near 0 and logarithmic far away."""
    low, high = min([-2.0, *differences]), max([2.0, *differences])
    axis.set_yscale("asinh", linear_width=_NEAR)
    axis.set_ylim(1.25 * low, 1.6 * high)
    around = {round(centre + sign * step) for step in _STEPS for sign in (-1, 1)}
    ticks = [t for t in around if 0 <= t <= 100 and 1.25 * low <= t - centre <= 1.6 * high]
    axis.set_yticks([t - centre for t in ticks], [str(t) for t in ticks])
    axis.minorticks_off()


def _copied(row: Row | None) -> bool:
    return row is not None and row["value"] > _COPIES * row["n"]


def _title(titles: Mapping[str, str], name: str) -> str:
    return titles.get(name, _words(name))


def _words(name: str) -> str:
    return name.replace("_", " ")
