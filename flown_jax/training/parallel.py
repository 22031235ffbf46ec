"""How a step runs on the devices of this machine.

One device: a jitted step. Several: the same step mapped over devices, each with an equal part
of the batch and a replica of the state. Nobody outside this file needs to know which.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils

from flown_jax.errors import UserError
from flown_jax.training.state import TrainState
from flown_jax.training.step import Loss, Metrics, make_step

PyTree = Any
AXIS = "devices"


def local_device_count() -> int:
    """Number of devices that this process can use."""
    return jax.local_device_count()


def describe_devices() -> dict[str, Any]:
    """Backend and kinds of the devices, as JSON values."""
    return {
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def peak_device_memory_gib() -> float | None:
    """Largest memory in use of any local device so far, in GiB; None where devices do not tell."""
    every = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in every if "peak_bytes_in_use" in found]
    return max(peaks) / 2**30 if peaks else None


def on_cpu() -> bool:
    """Whether the devices are processor cores."""
    return jax.default_backend() == "cpu"


def replicate(tree: PyTree, devices: int | None = None) -> PyTree:
    """The tree with a leading axis of `devices` (None: all), one replica on each device."""
    return jax_utils.replicate(tree, _select(devices))


def unreplicate(tree: PyTree) -> PyTree:
    """The first replica of a replicated tree, as new arrays on one device."""
    return jax.tree.map(lambda leaf: jnp.array(leaf.addressable_data(0)[0]), tree)


class CompiledStep:
    """A step with its devices: `step(state, batch) -> (state, metrics)`.

    The state that goes in comes from `place` or from the step itself, and is used up: its
    buffers become the new state's. `collect` gives a copy that lasts.
    """

    def __init__(self, function: Any, devices: list[jax.Device], frozen: PyTree = None) -> None:
        self._function = function
        self._frozen = frozen
        self._devices = devices
        # The collectives of fake CPU devices share one small thread pool: steps that are
        # dispatched while others wait in it starve them, and the runtime aborts the process.
        self._wait = len(devices) > 1 and devices[0].platform == "cpu"

    @property
    def device_count(self) -> int:
        """Number of devices that share a batch."""
        return len(self._devices)

    def place(self, state: TrainState) -> TrainState:
        """A copy of the state on the devices, ready to be used up."""
        if self.device_count == 1:
            return jax.tree.map(
                lambda leaf: jax.device_put(jnp.array(leaf), self._devices[0]), state
            )
        return jax_utils.replicate(state, self._devices)

    def collect(self, state: TrainState) -> TrainState:
        """A copy of the state as one device sees it, without a device axis."""
        if self.device_count == 1:
            return jax.tree.map(jnp.array, state)
        return unreplicate(state)

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The next state and the metrics, scalars; does not wait for either on accelerators.

        Args:
          state: as `place` or this method returned it.
          batch: pytree of arrays with a leading axis B, divisible by the number of devices.
        Raises:
          UserError: the devices cannot share the batch equally.
        """
        if self.device_count == 1:
            return self._function(state, batch, self._frozen)
        out = self._function(state, self._split(batch), self._frozen)
        return jax.block_until_ready(out) if self._wait else out

    def _split(self, batch: PyTree) -> PyTree:
        def split(leaf: Any) -> Any:
            shape = np.shape(leaf)
            if not shape or shape[0] % self.device_count:
                size = shape[0] if shape else "no axis"
                raise UserError(
                    f"batch size {size} cannot be shared equally by {self.device_count} devices"
                )
            return leaf.reshape(self.device_count, shape[0] // self.device_count, *shape[1:])

        return jax.tree.map(split, batch)


def compile_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float | None = None,
    ema_ramp: bool = True,
    devices: int | None = None,
    frozen: PyTree = None,
) -> CompiledStep:
    """The step of `step.make_step`, compiled for one or several local devices.

    The loss must be a mean over its batch; the mean over equal parts is then the mean over all.

    Args:
      loss_fn, optimizer, seed, ema_decay, ema_ramp: see `step.make_step`.
      devices: how many local devices to use; None for all of them.
      frozen: arrays that the loss needs and does not train; it finds them as batch["frozen"].
        They are arguments of the compiled step: as constants in it, they would be compiled in,
        and constants folded by XLA on CPU came out wrong now and then.
    Raises:
      UserError: there are fewer devices.
    """
    chosen = _select(devices)
    several = len(chosen) > 1
    step = make_step(
        loss_fn,
        optimizer,
        seed=seed,
        ema_decay=ema_decay,
        ema_ramp=ema_ramp,
        axis_name=AXIS if several else None,
    )

    def with_frozen(state: TrainState, batch: PyTree, frozen: PyTree) -> tuple[TrainState, Metrics]:
        return step(state, batch if frozen is None else {**batch, "frozen": frozen})

    if several:
        function = jax.pmap(
            with_frozen,
            axis_name=AXIS,
            in_axes=(0, 0, None),
            out_axes=(0, None),
            devices=chosen,
            donate_argnums=0,
        )
    else:
        function = jax.jit(with_frozen, donate_argnums=0)
        frozen = jax.device_put(frozen, chosen[0])
    return CompiledStep(function, chosen, frozen)


class OverModels:
    """A function of many independent models, shared among local devices.

    Args:
      function: `function(models, shared, *scalars) -> models`: pytrees whose leaves have a
        leading axis of models, arrays that all models need, numbers.
      multiple: the number of models that one device gets is a multiple of this; the places
        that are left over repeat the last model.
      devices: how many local devices to use; None for all of them.
    Raises:
      UserError: there are fewer devices.
    """

    def __init__(self, function: Any, *, multiple: int, devices: int | None = None) -> None:
        self._devices = _select(devices)
        self._multiple = multiple
        self._count = 0
        if len(self._devices) == 1:
            self._function = jax.jit(function)
        else:

            def on_each(models: PyTree, shared: PyTree, scalars: tuple[Any, ...]) -> PyTree:
                return function(models, shared, *scalars)

            self._function = jax.pmap(on_each, in_axes=(0, 0, None), devices=self._devices)

    def place(self, models: PyTree) -> PyTree:
        """The models on the devices."""
        self._count = jax.tree.leaves(models)[0].shape[0]
        devices, step = len(self._devices), len(self._devices) * self._multiple
        last = -(-self._count // step) * step
        index = np.minimum(np.arange(last), self._count - 1)
        models = jax.tree.map(lambda leaf: np.asarray(leaf)[index], models)
        if devices == 1:
            return jax.device_put(models, self._devices[0])
        return jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), models)

    def share(self, arrays: PyTree) -> PyTree:
        """Arrays that all models need, on the devices."""
        if len(self._devices) == 1:
            return jax.device_put(arrays, self._devices[0])
        return jax_utils.replicate(arrays, self._devices)

    def collect(self, models: PyTree) -> PyTree:
        """The placed models as host arrays with one leading axis, in their order."""

        def one(leaf: Any) -> np.ndarray:
            leaf = np.asarray(leaf)
            if len(self._devices) > 1:
                leaf = leaf.reshape(-1, *leaf.shape[2:])
            return leaf[: self._count]

        return jax.tree.map(one, models)

    def __call__(self, models: PyTree, shared: PyTree, *scalars: Any) -> PyTree:
        """The function's result for placed models and shared arrays."""
        if len(self._devices) == 1:
            return self._function(models, shared, *scalars)
        return self._function(models, shared, scalars)


def use_all_cores() -> None:
    """Let each processor core be a device of its own, where the processor is the device.

    One small model keeps one core busy at most. Must be called before the first array is made;
    later it does nothing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores or 1)


def _select(devices: int | None) -> list[jax.Device]:
    present = jax.local_devices()
    if devices is None:
        return present
    if not 1 <= devices <= len(present):
        raise UserError(f"devices must be between 1 and {len(present)}, not {devices}")
    return present[:devices]
