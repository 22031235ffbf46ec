"""How a step runs on the devices of a run.

One device: a jitted step. Several: the same step mapped over the devices of all processes, each
with an equal part of the batch and a replica of the state. Nobody outside needs to know which.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils

from flown_jax.errors import UserError
from flown_jax.layers.batch_axis import AXIS
from flown_jax.training.parallel.devices import every, local
from flown_jax.training.state import TrainState
from flown_jax.training.step import FROZEN, Loss, Metrics, make_step

PyTree = Any


def replicate(tree: PyTree, devices: int | None = None) -> PyTree:
    """The tree with a leading axis of `devices` (None: all local), one replica on each device."""
    return jax_utils.replicate(tree, local(devices))


def unreplicate(tree: PyTree) -> PyTree:
    """The first replica of a replicated tree, as new arrays on one device."""
    return jax.tree.map(lambda leaf: jnp.array(leaf.addressable_data(0)[0]), tree)


def shares(size: int, *, what: str, devices: int | None = None) -> None:
    """Refuse a batch that the devices of the run cannot share equally.

    Args:
      size: of the batch. what: has it; begins the sentence. devices: as in `compile_step`.
    Raises:
      UserError: as told.
    """
    count = len(_chosen(devices))
    if size % count:
        raise UserError(
            f"{what}: batch size {size} cannot be shared equally by {count} devices; choose a "
            f"multiple of {count}."
        )


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a compiled step holds on each of its devices, in bytes, as the compiler plans it.

    Attributes:
      devices: that share the batch.
      parameter_bytes: that are trained.
      state_bytes: parameters, their mean, the optimizer's moments, statistics.
      batch_bytes: a device's part of the batch.
      frozen_bytes: arrays that the loss needs and does not train.
      work_bytes: gradients and activations, and what the compiler puts beside them; what libraries
        of kernels take for themselves is not among them.
    """

    devices: int
    parameter_bytes: int
    state_bytes: int
    batch_bytes: int
    frozen_bytes: int
    work_bytes: int


class CompiledStep:
    """A step with its devices: `step(state, batch) -> (state, metrics)`.

    The state that goes in comes from `place` or from the step itself, and is used up: its
    buffers become the new state's. `collect` gives a copy that lasts.

    Attributes:
      footprint: the memory of a step; None before `plan`.
    """

    footprint: Footprint | None = None

    def __init__(self, function: Any, devices: list[jax.Device], frozen: PyTree = None) -> None:
        self._function = function
        self._frozen = frozen
        self._planned: tuple[Any, Any] | None = None  # shapes of a batch, the program for them
        self._devices = devices
        self._own = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]
        # The collectives of fake CPU devices share one small thread pool: steps that are
        # dispatched while others wait in it starve them, and the runtime aborts the process.
        self._wait = len(devices) > 1 and devices[0].platform == "cpu"

    @property
    def device_count(self) -> int:
        """Number of devices that share a batch, of all processes."""
        return len(self._devices)

    def place(self, state: TrainState) -> TrainState:
        """A copy of the state on the devices, ready to be used up."""
        if self.device_count == 1:
            return jax.tree.map(
                lambda leaf: jax.device_put(jnp.array(leaf), self._devices[0]), state
            )
        return jax_utils.replicate(state, [self._devices[i] for i in self._own])

    def collect(self, state: TrainState) -> TrainState:
        """A copy of the state as one device sees it, without a device axis."""
        if self.device_count == 1:
            return jax.tree.map(jnp.array, state)
        return unreplicate(state)

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The next state and the metrics, scalars; does not wait for either on accelerators.

        Args:
          state: as `place` or this method returned it.
          batch: pytree of arrays with a leading axis B, divisible by the number of devices; the
            whole batch in every process, which takes its part of it.
        Raises:
          UserError: the devices cannot share the batch equally.
        """
        own = batch if self.device_count == 1 else self._split(batch)
        function = self._function
        if self._planned is not None and self._planned[0] == _shapes(own):
            function = self._planned[1]
        out = function(state, own, self._frozen)
        return jax.block_until_ready(out) if self._wait else out

    def plan(self, state: TrainState, batch: PyTree) -> Footprint:
        """Compile for a state and a batch like these, and tell the memory.

        Args:
          state, batch: as of a call; neither is used up.
        Raises:
          UserError: the devices cannot share the batch equally.
        """
        own = batch if self.device_count == 1 else self._split(batch)
        compiled = self._function.lower(state, own, self._frozen).compile()
        found = compiled.memory_analysis()
        held = len(self._own) if self.device_count > 1 else 1  # devices whose arrays are in `state`
        self._planned = (_shapes(own), compiled)
        self.footprint = Footprint(
            devices=self.device_count,
            parameter_bytes=_bytes(state.params) // held,
            state_bytes=_bytes(state) // held,
            batch_bytes=_bytes(own) // held,
            frozen_bytes=_bytes(self._frozen),
            work_bytes=int(found.temp_size_in_bytes),
        )
        return self.footprint

    def _split(self, batch: PyTree) -> PyTree:
        """The parts of this process's devices."""

        def split(leaf: Any) -> Any:
            shape = np.shape(leaf)
            if not shape or shape[0] % self.device_count:
                size = shape[0] if shape else "no axis"
                raise UserError(
                    f"batch size {size} cannot be shared equally by {self.device_count} devices"
                )
            parts = leaf.reshape(self.device_count, shape[0] // self.device_count, *shape[1:])
            return parts[self._own[0] : self._own[-1] + 1]

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
    """The step of `step.make_step`, compiled for one device or several.

    The loss must be a mean over its batch; the mean over equal parts is then the mean over all,
    and what is drawn for the examples does not depend on the number of devices (`training.draws`).

    Args:
      loss_fn, optimizer, seed, ema_decay, ema_ramp: see `step.make_step`.
      devices: how many devices of this process to use, in every process alike, which then all
        take the same step; None for all devices of all processes, which share it.
      frozen: arrays that the loss needs and does not train; it finds them as batch["frozen"].
        They are arguments of the compiled step: as constants in it, they would be compiled in,
        and constants folded by XLA on CPU came out wrong now and then.
    Raises:
      UserError: there are fewer devices.
    """
    chosen = _chosen(devices)
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
        return step(state, batch if frozen is None else {**batch, FROZEN: frozen})

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


def _shapes(batch: PyTree) -> Any:
    leaves, form = jax.tree.flatten(batch)
    return form, [np.shape(leaf) for leaf in leaves]


def _bytes(tree: PyTree) -> int:
    return sum(np.size(leaf) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _chosen(devices: int | None) -> list[jax.Device]:
    return every() if devices is None else local(devices)
