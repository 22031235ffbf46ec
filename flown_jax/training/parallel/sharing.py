"""Work without training, such as drawing and measuring, shared by devices and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flown_jax.training.parallel.processes import gather

PyTree = Any
Item = TypeVar("Item")


def spread(tree: PyTree) -> PyTree:
    """Arrays whose first axis is shared by the devices of this process, for jitted functions.

    A jitted function of them computes each part where it lies, and draws what it draws on one
    device. They stay on one device where there is one, or where the axis cannot be shared equally.

    Args:
      tree: of arrays with one leading axis.
    """
    tree, devices = jax.tree.map(jnp.asarray, tree), jax.local_devices()
    count = len(devices)
    if count == 1 or any(len(leaf) % count for leaf in jax.tree.leaves(tree)):
        return tree
    mesh = Mesh(np.asarray(devices), ("parts",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("parts")))


def share_out(function: Callable[[Item], PyTree], items: Sequence[Item]) -> list[PyTree]:
    """The function of each item, each called in one process alone; all get all results.

    Args:
      function: gives trees of arrays, of the same shapes for all items; calls nothing that
        processes must call together.
      items: the same in all processes.
    """
    processes = jax.process_count()
    if processes == 1:
        return [function(item) for item in items]
    found: list[PyTree] = []
    for first in range(0, len(items), processes):
        own = function(items[min(first + jax.process_index(), len(items) - 1)])
        every = jax.tree.map(lambda leaf: gather(np.asarray(leaf)[None]), own)
        count = min(processes, len(items) - first)
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], every) for i in range(count)]
    return found
