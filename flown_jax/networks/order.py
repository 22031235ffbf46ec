"""What an encoder that does not see the order of units can and cannot do with a zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flown_jax.weights.statistics import networks


def order_remark(tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> str | None:
    """A sentence where zoos of several networks are read as graphs; None where there are none.

    Every decoder here writes weights in one order. The states of one trajectory share theirs;
    networks of several seeds do not, aligned or not: a graph does not tell its order.

    Args:
      tables: of the zoos by name, with the rows that are learned from.
    """
    counts = {name: len(set(networks(table))) for name, table in tables.items()}
    seeds = [f"{name} ({count} networks)" for name, count in counts.items() if count > 1]
    if not seeds:
        return None
    return (
        f"codec.encoder 'graph' reads networks without the order of their units, which its decoder "
        f"has to write, and {', '.join(seeds)} {'are zoos' if len(seeds) > 1 else 'is a zoo'} of "
        "several seeds: their training networks can be memorised, networks of other seeds cannot "
        "be encoded."
    )
