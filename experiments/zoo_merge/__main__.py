"""Joins zoos of one recipe into a new one.

    python -m experiments.zoo_merge zoos/mnist workdirs/zoo-mnist-shard*of16/zoo

The zoos are of the same networks, data set and recipe, as the parts that `train_zoo --shard=I/N`
trains; a network that is in several of them is taken once. The networks stand in the order of
their epochs and seeds, which is that of a zoo that was trained at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from flown_jax.errors import UserError
from flown_jax.files import writing
from flown_jax.training.fingerprints import difference
from flown_jax.training.zoo_folder import write_once
from flown_jax.weights import zoo
from flown_jax.weights.zoo import Zoo


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.zoo_merge", __doc__)
    parser.add_argument("to", metavar="TO", help="the new zoo's folder")
    parser.add_argument("zoos", metavar="ZOO", nargs="+", help="folders of zoos")
    with command.one_sentence():
        arguments = parser.parse_args(sys.argv[1:])
        target = Path(arguments.to)
        if zoo.exists(target):
            raise UserError(f"there is a zoo in {target} already.")
        found = merge(target, [zoo.load(path) for path in arguments.zoos])
        print(f"{len(found):,} networks of {len(arguments.zoos)} zoos are in {target}")


def merge(target: Path, parts: list[Zoo]) -> Zoo:
    """Write the zoo that has the networks of all parts.

    Raises:
      UserError: parts of other networks, data or recipes, or one network in two forms.
    """
    first = parts[0]
    for other in parts[1:]:
        _same(first, other)
    rows = [row for part in parts for row in part.rows()]
    order = sorted(range(len(rows)), key=lambda i: _place(rows[i]))
    weights = np.concatenate([part.weights for part in parts])
    buffers = None
    if first.buffers is not None:
        buffers = np.concatenate([b for part in parts if (b := part.buffers) is not None])

    def networks(chosen: list[int]) -> tuple[Any, ...]:
        more = () if buffers is None else (buffers[chosen],)
        return (weights[chosen], [rows[i] for i in chosen], *more)

    # One after the other where a network is there twice: the zoo sees whether it is the same.
    given: list[int] = []
    later: list[int] = []
    seen = set()
    for i in order:
        place = _place(rows[i])
        (later if place in seen else given).append(i)
        seen.add(place)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_once(
            target,
            first.spec,
            [networks(given), *(networks([i]) for i in later)],
            recipe=first.recipe,
            dataset=first.dataset,
            base=first.base,
            buffers_spec=first.buffers_spec,
        )
    return zoo.load(target)


def _same(first: Zoo, other: Zoo) -> None:
    both = f"{first.path} and {other.path} cannot be joined"
    if (found := first.spec.difference(other.spec)) is not None:
        raise UserError(f"{both}: they are of other networks, {found}.")
    if first.dataset != other.dataset:
        raise UserError(f"{both}: their data sets are {first.dataset!r} and {other.dataset!r}.")
    if (found := difference(first.recipe, other.recipe)) is not None:
        raise UserError(f"{both}: their recipes are others, {found}.")
    if (first.buffers is None) != (other.buffers is None):
        raise UserError(f"{both}: one of them has running statistics and the other has none.")
    if first.base is not None or other.base is not None:
        raise UserError(f"{both}: they are of parts of a network, each around one of its own.")


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Where a network stands: by epoch, then by what names it."""
    names = (row.get(name) for name in ("trial", "file", "seed", "iteration"))
    return (row["epoch"], *((value is None, str(type(value)), value or 0) for value in names))


if __name__ == "__main__":
    main()
