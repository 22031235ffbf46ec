"""Figures of a run, as PNG files. Matplotlib is imported where it is used, without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.evaluation.tables import pivot
from flown_jax.files import writing

_GREY, _OURS, _RIVAL = "#9aa0a6", "#1a66b3", "#d9822b"


def contact_sheet(
    path: Path, images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str], suptitle: str = ""
) -> None:
    """Pictures side by side, a row for each title.

    Args:
      images: uint8, grey (rows, columns, H, W) or (rows, columns, H, W, 1), or colour
        (rows, columns, H, W, 3); rows of other sizes than their neighbours as a list.
    """
    columns = max(len(row) for row in images)
    figure, axes = new_figure(len(images), 1, (columns * 0.42 + 1.6, len(images) * 0.42 + 0.4))
    for axis, row, title in zip(axes[:, 0], images, titles, strict=True):
        count, height, width, *channels = row.shape
        strip = row.swapaxes(0, 1).reshape(height, count * width, *channels)
        # The limits and the colour map are for grey images alone; colour is drawn as it is.
        axis.imshow(strip[..., 0] if channels == [1] else strip, cmap="gray", vmin=0, vmax=255)
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(suptitle, fontsize=9)
    save_figure(figure, path)


def accuracy_bars(
    path: Path, rows: Sequence[Mapping[str, Any]], sets: Mapping[str, str], table: str = "main"
) -> None:
    """Accuracy of every method with its interval, a panel a set (set -> title)."""
    figure, axes = new_figure(1, len(sets), (5.2 * len(sets), 5.2))
    for axis, (name, title) in zip(axes[0], sets.items(), strict=True):
        cells = pivot(rows, name, table)
        methods = list(cells)[::-1]
        values = np.array([cells[m]["accuracy"] for m in methods], float) * 100
        colours = [_colour(m) for m in methods]
        axis.barh(methods, values[:, 0], xerr=values[:, 1], color=colours, error_kw={"lw": 1})
        probe = cells["linear_probe"]["accuracy"][0] * 100
        axis.axvline(probe, color="black", lw=0.8, ls=":")
        axis.set_xlim(0, 100)
        axis.set_xlabel("accuracy on query images, %")
        axis.set_title(title)
    save_figure(figure, path)


def curves(
    path: Path,
    x: Sequence[int],
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    x_label: str,
    y_labels: Mapping[str, str],
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Lines over x (log scale), a panel for each y.

    Args:
      lines: y -> label -> values. y_labels: y -> text of its axis.
      levels: y -> label -> a value drawn as a horizontal line.
    """
    figure, axes = new_figure(1, len(lines), (5.0 * len(lines), 3.8))
    for axis, (name, of_label) in zip(axes[0], lines.items(), strict=True):
        for i, (label, values) in enumerate(of_label.items()):
            axis.plot(x, values, marker="o", ms=4, label=label, color=f"C{i}")
        for i, (label, value) in enumerate((levels or {}).get(name, {}).items()):
            axis.axhline(value, ls=":", lw=1, label=label, color=f"C{i}")
        axis.set_xscale("log")
        axis.set_xticks(list(x), [f"{v:g}" for v in x])
        axis.minorticks_off()
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_labels[name])
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def reliability(
    path: Path, diagrams: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
) -> None:
    """Accuracy against confidence, a panel a set: set -> method -> (confidence, right), flat."""
    figure, axes = new_figure(1, len(diagrams), (4.4 * len(diagrams), 4.2))
    edges = np.linspace(0, 1, 11)
    for axis, (title, methods) in zip(axes[0], diagrams.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        for label, (confidence, right) in methods.items():
            index = np.clip(np.digitize(confidence, edges) - 1, 0, 9)
            counts = np.bincount(index, minlength=10)
            # A bin with few predictions says nothing.
            some = counts > max(20, 0.002 * counts.sum())
            mean = [np.bincount(index, v, 10)[some] / counts[some] for v in (confidence, right)]
            axis.plot(*mean, marker="o", ms=4, label=label)
        axis.set_xlabel("confidence")
        axis.set_ylabel("share of right predictions")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7)
    save_figure(figure, path)


def new_figure(
    rows: int,
    columns: int,
    size: tuple[float, float],
    widths: Sequence[float] | None = None,
) -> tuple[Any, Any]:
    """A figure of the size in inches and its axes (rows, columns); `widths` of the columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=widths)


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure as a PNG file; its folder is made if absent."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def _colour(method: str) -> str:
    if method.startswith("flown"):
        return _OURS
    return _RIVAL if method.startswith(("ddpm", "regression", "caml")) else _GREY
