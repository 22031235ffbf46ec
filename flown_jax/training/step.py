"""One training step as a pure function of a state and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flown_jax.training.draws import part_key
from flown_jax.training.optimizers import ema_update
from flown_jax.training.state import TrainState

PyTree = Any
FROZEN = "frozen"  # what a batch has beside the examples: arrays that are not trained
Metrics = dict[str, jax.Array]
Loss = Callable[[PyTree, jax.Array, PyTree, PyTree], tuple[jax.Array, tuple[Metrics, PyTree]]]
Step = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


def make_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float | None = None,
    ema_ramp: bool = True,
    axis_name: str | None = None,
) -> Step:
    """A pure step, `step(state, batch) -> (state, metrics)`.

    The key of a step is drawn from (seed, state.step) and nothing else, so a run that was
    interrupted and resumed sees the same numbers as one that was not.

    Args:
      loss_fn: `loss_fn(params, key, batch, extra) -> (loss, (metrics, extra))`; loss and the
        values of metrics are scalars, means over the batch.
      optimizer: an optax chain.
      seed: root of all the step's randomness.
      ema_decay: decay of the moving average in state.ema_params; None where there is none.
      ema_ramp: see `optimizers.ema_update`.
      axis_name: name of a mapped axis over which the batch is spread in equal parts: what is
        drawn for the examples is what one device with the whole batch draws (`draws.part_key`),
        and gradients, metrics and extra are averaged over the axis.
    Returns:
      The step. Its metrics are those of the loss with "loss", "grad_norm", "param_norm" and
      "update_norm" added; norms are global L2 norms, the parameters' one after the update.
    Raises:
      ValueError: (when traced) only one of ema_decay and state.ema_params is given.
    """

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        if (ema_decay is None) != (state.ema_params is None):
            raise ValueError("ema_decay and state.ema_params must be given together or not at all")
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis_name is not None:
            index, parts = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)
            key = part_key(key, index, parts, _size(batch))

        def objective(params: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            return loss_fn(params, key, batch, state.extra)

        (loss, (metrics, extra)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        metrics = {"loss": loss, **metrics}
        if axis_name is not None:
            gradients, metrics, extra = _mean((gradients, metrics, extra), axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finished = state.step + 1
        ema_params = state.ema_params
        if ema_decay is not None:
            ema_params = ema_update(ema_params, params, finished, ema_decay, ema_ramp)
        metrics |= {
            "grad_norm": optax.tree.norm(gradients),
            "param_norm": optax.tree.norm(params),
            "update_norm": optax.tree.norm(updates),
        }
        return TrainState(finished, params, opt_state, ema_params, extra), metrics

    return step


def _size(batch: PyTree) -> int:
    """Examples of a batch."""
    if isinstance(batch, Mapping):
        batch = {name: part for name, part in batch.items() if name != FROZEN}
    return jax.tree.leaves(batch)[0].shape[0]


def _mean(tree: PyTree, axis_name: str) -> PyTree:
    """Mean over the axis; counters, which are equal on all devices, stay integers."""

    def mean(leaf: jax.Array) -> jax.Array:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if floating else leaf

    return jax.tree.map(mean, tree)
