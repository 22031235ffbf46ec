"""Permutations of hidden units that leave a network's function as it is, read off its graph.

The symmetries of a graph's wiring are those of the network: units of a hidden group change places,
tied groups alike, and the heads of an attention as a whole. Only graphs in which repeated nodes
have the published order promise too much, as do parts of networks whose rest stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.weights.graphs import Topology


def random_permutations(topology: Topology, random: np.random.Generator) -> dict[int, np.ndarray]:
    """A permutation of the units of each group that may be permuted, by the group's number.

    Inputs, outputs and groups tied to them keep their order, as do tied groups of unequal width.
    """
    groups = topology.groups
    loose = {i for i in range(len(groups))} - {i for tied in topology.tied for i in tied}
    found: dict[int, np.ndarray] = {}
    for tied in [*topology.tied, *((i,) for i in sorted(loose))]:
        same = {(groups[i].units, groups[i].blocks, groups[i].role) for i in tied}
        if len(same) > 1 or groups[tied[0]].role != "hidden":
            continue
        units, blocks, _ = same.pop()
        order = random.permutation(blocks)
        for i in tied:
            if blocks > 1 or i == tied[0]:
                inside = [random.permutation(units // blocks) for _ in range(blocks)]
            moved = [block * (units // blocks) + p for block, p in zip(order, inside, strict=True)]
            found[i] = np.concatenate(moved)
    return found


def permuted(topology: Topology, w: Array, permutations: Mapping[int, np.ndarray]) -> Array:
    """The same functions with other orders of hidden units, vectors (..., D).

    Args:
      topology: of the network. w: (..., D).
      permutations: of the units of groups, by number: the new unit u is the old permutation[u], in
        each of its copies. Groups that are not given keep their order.
    Raises:
      UserError: no permutation of a group's units, or one of inputs or outputs; groups whose
        connections do not allow it, such as one of two tied groups alone.
    """
    count = len(topology.role)
    old = np.arange(count)
    for number, order in permutations.items():
        group, order = topology.groups[number], np.asarray(order)
        if not np.array_equal(np.sort(order), np.arange(group.units)):
            raise UserError(
                f"{group.name} needs a permutation of 0 to {group.units - 1}, not {order!s:.80}."
            )
        if group.role != "hidden" and np.any(order != np.arange(group.units)):
            raise UserError(f"{group.name} is {group.role}: its units cannot change places.")
        copies = np.arange(group.size).reshape(group.positions, group.units)
        old[group.start : group.start + group.size] = group.start + copies[:, order].reshape(-1)
    keys = topology.senders.astype(np.int64) * count + topology.receivers
    wanted = old[topology.senders].astype(np.int64) * count + old[topology.receivers]
    edges = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    if len(lost := np.flatnonzero(keys[edges] != wanted)):
        ends = (topology.senders[lost[0]], topology.receivers[lost[0]])
        names = [
            next(g.name for g in topology.groups if g.start <= node < g.start + g.size)
            for node in ends
        ]
        raise UserError(
            f"{names[0]} and {names[1]} are connected unit by unit or head by head, and must be "
            "permuted alike."
        )
    nodes, features = topology.features(w)
    return topology.weights(nodes[..., old, :], features[..., edges, :])


def shuffled(topology: Topology, w: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same functions, each with its hidden units in a random order of its own, (N, D).

    Args:
      topology: of the networks. w: (N, D).
      random: of the orders.
    """
    places = jnp.arange(topology.size, dtype=jnp.int32)
    orders = [
        np.asarray(permuted(topology, places, random_permutations(topology, random))) for _ in w
    ]
    return np.take_along_axis(w, np.stack(orders), 1)
