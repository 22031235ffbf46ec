"""Functions of many independent models, shared among the devices of all processes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import jax_utils

from flown_jax.training.parallel.devices import local
from flown_jax.training.parallel.processes import gather

PyTree = Any


class OverModels:
    """A function of many independent models, shared among devices.

    Each process has the models of its devices; nothing goes between them until `collect`.

    Args:
      function: `function(models, shared, *scalars) -> models`: pytrees whose leaves have a
        leading axis of models, arrays that all models need, numbers.
      multiple: the number of models that one device gets is a multiple of this; the places
        that are left over repeat the last model.
      devices: how many devices of this process to use; None for all of them.
    Raises:
      UserError: there are fewer devices.
    """

    def __init__(self, function: Any, *, multiple: int, devices: int | None = None) -> None:
        self._devices = local(devices)
        self._multiple = multiple
        self._count = 0
        if len(self._devices) == 1:
            self._function = jax.jit(function)
        else:

            def on_each(models: PyTree, shared: PyTree, scalars: tuple[Any, ...]) -> PyTree:
                return function(models, shared, *scalars)

            self._function = jax.pmap(on_each, in_axes=(0, 0, None), devices=self._devices)

    def place(self, models: PyTree) -> PyTree:
        """The models on the devices, of all that are given those of this process."""
        self._count = jax.tree.leaves(models)[0].shape[0]
        devices, processes = len(self._devices), jax.process_count()
        step = devices * processes * self._multiple
        last = -(-self._count // step) * step
        index = np.minimum(np.arange(last), self._count - 1)
        own = index.reshape(processes, -1)[jax.process_index()]
        models = jax.tree.map(lambda leaf: np.asarray(leaf)[own], models)
        if devices == 1:
            return jax.device_put(models, self._devices[0])
        return jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), models)

    def share(self, arrays: PyTree) -> PyTree:
        """Arrays that all models need, on the devices."""
        if len(self._devices) == 1:
            return jax.device_put(arrays, self._devices[0])
        return jax_utils.replicate(arrays, self._devices)

    def collect(self, models: PyTree) -> PyTree:
        """The placed models of all processes as host arrays with one leading axis, in order."""

        def one(leaf: Any) -> np.ndarray:
            leaf = np.asarray(leaf)
            if len(self._devices) > 1:
                leaf = leaf.reshape(-1, *leaf.shape[2:])
            return gather(leaf)[: self._count]

        return jax.tree.map(one, models)

    def __call__(self, models: PyTree, shared: PyTree, *scalars: Any) -> PyTree:
        """The function's result for placed models and shared arrays."""
        if len(self._devices) == 1:
            return self._function(models, shared, *scalars)
        return self._function(models, shared, scalars)
