"""One picture of a zoo: accuracies, values of the tensors, distances between the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.evaluation.figures import new_figure, save_figure
from flown_jax.weights import statistics
from flown_jax.weights.statistics import Spread
from flown_jax.weights.zoo import Zoo
from flown_jax.weights.zoo_rows import SPLITS

_COLOURS = {"train": "#1a66b3", "held_out": "#d9822b"}
_TITLES = {"train": "training", "held_out": "held out"}
_POINTS = 6  # epochs up to which every network is a point
_NAMES = 40  # tensors up to which each has its name


def overview(path: Path, zoo: Zoo, *, title: str = "", most: int = 400) -> None:
    """Three panels as a PNG file: accuracies, tensors, distances between networks.

    Args:
      path: the file to write.
      zoo: with one network at least.
      most: networks whose distances are shown; of more, evenly spaced ones.
    """
    tensors = statistics.tensors(zoo.weights, zoo.spec)
    height = 4.6 if len(tensors) <= 16 else min(4.6 + 0.12 * (len(tensors) - 16), 7.0)
    figure, axes = new_figure(1, 3, (15.5, height), widths=(1.0, 1.05, 1.1))
    accuracy_panel(axes[0, 0], zoo.table)
    tensor_panel(axes[0, 1], tensors)
    order = sorted_networks(zoo.table, most)
    distance_panel(
        figure,
        axes[0, 2],
        statistics.distances(zoo.weights[order]),
        [zoo.table["split"][i] for i in order],
    )
    if title:
        figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def sorted_networks(table: Mapping[str, Sequence[Any]], most: int) -> list[int]:
    """Indices of networks, training ones first, a network's epochs side by side.

    Args:
      table: of a zoo. most: how many at most; evenly spaced over the sorted ones.
    """
    count = len(table["split"])
    names = [str(value) for value in table.get("trial", [""] * count)]
    order = sorted(
        range(count),
        key=lambda i: (
            table["split"][i] != "train",
            -1 if table["seed"][i] is None else table["seed"][i],
            names[i],
            table["epoch"][i],
        ),
    )
    if count > most:
        order = [order[i] for i in np.linspace(0, count - 1, most).round().astype(int)]
    return order


def accuracy_panel(axis: Any, table: Mapping[str, Sequence[Any]]) -> None:
    """Accuracies over epochs: a point a network, or mean and range where epochs are many."""
    column = best_column(table)
    axis.set_title("accuracy of the networks", fontsize=10)
    if column is None:
        axis.text(0.5, 0.5, "no accuracies recorded", ha="center", va="center", color="grey")
        axis.set_axis_off()
        return
    spreads = statistics.accuracies(table, column)
    epochs = sorted({epoch for epoch, _ in spreads})
    splits = [split for split in SPLITS if any(s == split for _, s in spreads)]
    for k, split in enumerate(splits):
        if len(epochs) <= _POINTS:
            offset = 0.0 if len(splits) == 1 else (-0.2, 0.2)[k]
            _points(axis, table, column, spreads, epochs, split, offset)
        else:
            _lines(axis, spreads, epochs, split)
    if len(epochs) <= _POINTS:
        axis.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
        axis.set_xlim(-0.6, len(epochs) - 0.4)
    axis.set_xlabel("epoch")
    axis.set_ylabel(f"{column.replace('_', ' ')}, %")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)


def tensor_panel(axis: Any, tensors: Mapping[str, Spread]) -> None:
    """Of every tensor the range (thin), mean and deviation (thick) over all networks."""
    places = np.arange(len(tensors))
    spreads = list(tensors.values())
    mean, std = (np.array([getattr(s, what) for s in spreads]) for what in ("mean", "std"))
    std = np.nan_to_num(std)
    smallest, largest = [s.smallest for s in spreads], [s.largest for s in spreads]
    thick = 5.0 if len(spreads) <= _NAMES else 2.5
    axis.hlines(places, smallest, largest, color=_COLOURS["train"], lw=0.8)
    axis.hlines(places, mean - std, mean + std, color=_COLOURS["train"], lw=thick)
    axis.plot(mean, places, "|", color="white", ms=thick, mew=1.2)
    axis.axvline(0, color="black", lw=0.6, ls=":")
    step = -(-len(tensors) // _NAMES)
    axis.set_yticks(places[::step], list(tensors)[::step], fontsize=8 if step == 1 else 6)
    axis.set_ylim(len(tensors) - 0.4, -0.6)
    axis.set_xlabel("weight: mean ± std (thick), smallest to largest (thin)")
    axis.set_title("tensors, over all networks", fontsize=10)
    axis.grid(axis="x", alpha=0.3)


def distance_panel(figure: Any, axis: Any, matrix: np.ndarray, splits: Sequence[str]) -> None:
    """Distances between networks as a picture; the diagonal, always 0, is left white.

    Args:
      matrix: (N, N). splits: of the networks, training ones first.
    """
    axis.set_title("L2 distances between all networks and epochs", fontsize=10)
    if len(matrix) < 2:
        axis.text(0.5, 0.5, "a single network", ha="center", va="center", color="grey")
        axis.set_axis_off()
        return
    shown = matrix + np.where(np.eye(len(matrix), dtype=bool), np.nan, 0.0)
    # Epochs of one network are few and close to each other: they would take the whole scale.
    low, high = np.nanpercentile(shown, [2, 98])
    image = axis.imshow(shown, cmap="viridis", interpolation="nearest", vmin=low, vmax=high)
    figure.colorbar(image, cax=axis.inset_axes((1.03, 0.0, 0.045, 1.0)), extend="both")
    axis.set_xticks([])
    axis.set_yticks([])
    border = sum(split == "train" for split in splits)
    middles = {"train": border / 2, "held_out": (border + len(splits)) / 2}
    if 0 < border < len(splits):
        for line in (axis.axhline, axis.axvline):
            line(border - 0.5, color="white", lw=1.2)
    for split in dict.fromkeys(splits):
        label = f"{_TITLES[split]} ({splits.count(split)})"
        middle = middles[split] / len(splits)
        style: dict[str, Any] = {"transform": axis.transAxes, "fontsize": 8}
        style["color"] = _COLOURS[split]
        axis.text(middle, -0.02, label, ha="center", va="top", **style)
        axis.text(-0.02, 1 - middle, label, ha="right", va="center", rotation=90, **style)


def best_column(table: Mapping[str, Sequence[Any]]) -> str | None:
    """The first of test, validation and training accuracy that is recorded."""
    for column in ("test_accuracy", "validation_accuracy", "train_accuracy"):
        if any(value is not None for value in table.get(column, ())):
            return column
    return None


def _points(
    axis: Any,
    table: Mapping[str, Sequence[Any]],
    column: str,
    spreads: Mapping[tuple[int, str], Spread],
    epochs: Sequence[int],
    split: str,
    offset: float,
) -> None:
    """A point a network, spread sideways, and a bar at the mean."""
    label: str | None = _TITLES[split]
    for place, epoch in enumerate(epochs):
        if (epoch, split) not in spreads:
            continue
        values = [
            100 * value
            for value, e, s in zip(table[column], table["epoch"], table["split"], strict=True)
            if value is not None and e == epoch and s == split
        ]
        across = np.random.default_rng(0).uniform(-0.13, 0.13, len(values))
        centre = place + offset
        dots = {"ms": 3.5, "alpha": 0.45, "mew": 0, "color": _COLOURS[split]}
        axis.plot(centre + across, values, "o", label=label, **dots)
        mean = 100 * spreads[epoch, split].mean
        axis.hlines(mean, centre - 0.18, centre + 0.18, color="black", lw=1.6)
        label = None


def _lines(
    axis: Any, spreads: Mapping[tuple[int, str], Spread], epochs: Sequence[int], split: str
) -> None:
    """Mean over epochs, with the range of the networks as a band."""
    there = [epoch for epoch in epochs if (epoch, split) in spreads]
    of = [spreads[epoch, split] for epoch in there]
    colour = _COLOURS[split]
    axis.fill_between(
        there,
        [100 * s.smallest for s in of],
        [100 * s.largest for s in of],
        color=colour,
        alpha=0.15,
        lw=0,
    )
    axis.plot(
        there, [100 * s.mean for s in of], color=colour, label=f"{_TITLES[split]}: mean, range"
    )
