"""Tables of what is known about a zoo: what it is, its accuracies, tensors and distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.evaluation import zoo_figures
from flown_jax.weights import graphs, statistics
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import Spread
from flown_jax.weights.zoo import Zoo
from flown_jax.weights.zoo_rows import SPLITS

_MOST = 1000  # networks whose distances are computed
_EPOCHS = 12  # epochs of the table of accuracies
_COLUMNS = ("train_accuracy", "validation_accuracy", "test_accuracy")


def show(found: Zoo) -> None:
    """Print everything that is known about a zoo."""
    table(f"zoo {found.path}", ["", ""], summary(found), texts=2)
    if rows := accuracy_rows(found):
        heads = ["epoch", "networks", "images", "number", "accuracy %", "min", "max"]
        table("accuracies, mean ± standard deviation over networks", heads, rows, texts=3)
    heads = ["tensor", "shape", "mean", "std", "min", "max"]
    table("weights, over all networks", heads, tensor_rows(found))
    last = found.select(statistics.last_states(found.table))
    chosen = last.select(zoo_figures.sorted_networks(last.table, _MOST))
    which = "at the last epoch of each" if len(last) < len(found) else "between all"
    if len(chosen) < len(last):
        which += f", {len(chosen):,} of {len(last):,} networks"
    heads = ["", "all pairs", "min", "max", "the nearest", "min", "max"]
    table(f"L2 distances, {which}", heads, distance_rows(chosen))


def table(title: str, heads: list[str], rows: list[list[str]], texts: int = 1) -> None:
    """Print a table; its first columns, `texts` of them, begin at the left."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width to keep to
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(heads))
    for i, head in enumerate(heads):
        shown.add_column(head, justify="left" if i < texts else "right")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(shown)


def summary(found: Zoo) -> list[list[str]]:
    """What the zoo is: lines of heading and text."""
    spec, splits, buffers = found.spec, found.table["split"], found.buffers_spec
    sizes, inputs = spec.sizes_dict, spec.inputs_dict
    activation = sizes.pop("activation", None)
    network = spec.model or "not registered"
    part = ", a part of the network" if spec.partial else ""
    lines = {
        "data set": found.dataset or "unknown",
        "network": f"{network}: {_listed(sizes)}" if sizes else network,
        "activation": activation,
        "inputs": _listed(inputs) or "not recorded",
        "a vector": f"{spec.size:,} weights in {len(spec.entries)} tensors{part}",
        "buffers": f"{buffers.size:,} running statistics a network" if buffers else None,
        "vectors": f"{splits.count('train'):,} training, {splits.count('held_out'):,} held out",
        "epochs": _ranges(sorted(set(found.table["epoch"]))),
        "recipe": _listed(found.recipe) or "not recorded",
        "as a graph": _graph(spec),
        "spec": spec.fingerprint[:16],
    }
    return [[head, str(text)] for head, text in lines.items() if text]


def _graph(spec: WeightSpec) -> str:
    """Size of a network's graph, which an encoder's time and memory grow with."""
    try:
        count = graphs.counts(graphs.topology(spec))
    except UserError as error:
        return f"none: {error}"
    return (
        f"{count['nodes']:,} nodes, {count['edges']:,} edges; attention over {count['pairs']:,} "
        f"pairs of nodes, {count['dense_pairs']:,} in the dense form"
    )


def accuracy_rows(found: Zoo) -> list[list[str]]:
    """Cells of each epoch, split and set of images; of many epochs some, evenly spaced."""
    spreads = {
        (*key, column.removesuffix("_accuracy")): spread
        for column in _COLUMNS
        for key, spread in statistics.accuracies(found.table, column).items()
    }
    epochs = sorted({epoch for epoch, _, _ in spreads})
    if len(epochs) > _EPOCHS:
        step = (len(epochs) - 1) / (_EPOCHS - 1)
        epochs = [epochs[round(i * step)] for i in range(_EPOCHS)]
    # Sorting is stable: images stay in the order of the columns.
    order = sorted(spreads, key=lambda key: (key[0], SPLITS.index(key[1])))
    return [
        [
            str(epoch),
            {"train": "training"}.get(split, "held out"),
            images,
            str(spreads[epoch, split, images].n),
            *_cells(spreads[epoch, split, images], 100.0, 2),
        ]
        for epoch, split, images in order
        if epoch in epochs
    ]


def tensor_rows(found: Zoo) -> list[list[str]]:
    """Cells of each tensor."""
    shapes = {e.name: "x".join(map(str, e.shape)) or "1" for e in found.spec.entries}
    return [
        [name, shapes[name], *(f"{v:.4f}" for v in (s.mean, s.std, s.smallest, s.largest))]
        for name, s in statistics.tensors(found.weights, found.spec).items()
    ]


def distance_rows(found: Zoo) -> list[list[str]]:
    """Cells of distances within each split, and from held-out networks to training ones."""
    splits = np.array(found.table["split"])
    train, held = (found.weights[splits == split] for split in SPLITS)
    rows = []
    for title, members in (("among training", train), ("among held out", held)):
        if len(members) > 1:
            pairs = statistics.within(statistics.distances(members))
            rows.append([title, *(cell for spread in pairs for cell in _cells(spread, 1.0, 3))])
    if len(train) and len(held):
        pairs = statistics.between(statistics.distances(held, train))
        cells = [cell for spread in pairs for cell in _cells(spread, 1.0, 3)]
        rows.append(["held out to training", *cells])
    return rows or [["a single network", *[""] * 6]]


def _cells(spread: Spread, factor: float, digits: int) -> list[str]:
    """Mean with deviation, smallest, largest; of one number the number alone."""
    numbers = (spread.mean, spread.std, spread.smallest, spread.largest)
    mean, std, low, high = (f"{number * factor:.{digits}f}" for number in numbers)
    return [mean, "", ""] if spread.n == 1 else [f"{mean} ± {std}", low, high]


def _listed(values: Mapping[str, Any]) -> str:
    """Fields in a line; hashes are cut to their beginning, None is left out."""
    parts = []
    for key, value in values.items():
        if value is not None:
            text = str(value)
            text = f"{text[:12]}…" if isinstance(value, str) and len(text) >= 64 else text
            parts.append(f"{key.replace('_', ' ')} {text}")
    return ", ".join(parts)


def _ranges(numbers: list[int]) -> str:
    """Whole numbers in a line, neighbours as 46-50."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
