"""The pure step: its keys, metrics, average and carried state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.training import TrainState, averaged, make_step
from tests.training import toy


def make(loss=toy.loss_fn, ema_decay=0.9, seed=3):
    return jax.jit(make_step(loss, toy.optimizer(), seed=seed, ema_decay=ema_decay))


def test_state_starts_at_zero_with_the_average_equal_to_params():
    state = toy.initial()
    assert state.step.dtype == jnp.int32 and int(state.step) == 0
    toy.assert_equal(state.ema_params, state.params)
    assert averaged(state) is state.ema_params
    plain = toy.initial(ema=False)
    assert plain.ema_params is None and averaged(plain) is plain.params


def test_step_is_deterministic_and_depends_on_its_index_and_the_seed():
    state, batch = toy.initial(), toy.batch_at(0)
    toy.assert_equal(make()(state, batch), make()(state, batch))
    later = TrainState(state.step + 1, *(getattr(state, n) for n in FIELDS))
    assert make()(state, batch)[1]["loss"] != make()(later, batch)[1]["loss"]
    assert make()(state, batch)[1]["loss"] != make(seed=4)(state, batch)[1]["loss"]


FIELDS = ("params", "opt_state", "ema_params", "extra")


def test_metrics_are_the_losses_own_and_the_norms():
    state, batch = toy.initial(), toy.batch_at(0)
    new, metrics = make(toy.quiet_loss)(state, batch)
    (loss, _), gradient = jax.value_and_grad(toy.quiet_loss, has_aux=True)(
        state.params, None, batch, state.extra
    )
    assert set(metrics) == {"loss", "error", "grad_norm", "param_norm", "update_norm"}
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(metrics["param_norm"], optax.tree.norm(new.params), rtol=1e-6)
    assert int(new.step) == 1 and int(new.extra["count"]) == 1
    np.testing.assert_allclose(new.extra["mean"], 0.1 * batch["x"].mean(0), rtol=1e-5)


def test_average_and_its_decay_belong_together():
    with pytest.raises(ValueError, match="given together"):
        make(ema_decay=None)(toy.initial(), toy.batch_at(0))
    with pytest.raises(ValueError, match="given together"):
        make()(toy.initial(ema=False), toy.batch_at(0))


def test_axis_averages_what_is_averaged_and_gives_each_its_noise():
    """The mapped step, without devices: vmap has named axes too."""
    step = make_step(toy.loss_fn, toy.optimizer(), seed=3, ema_decay=0.9, axis_name="axis")
    state, batch = toy.initial(), toy.batch_at(0)
    halves = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), batch)
    new, metrics = jax.vmap(step, in_axes=(None, 0), axis_name="axis")(state, halves)
    whole, whole_metrics = make(toy.loss_fn)(state, batch)
    for one in range(2):
        replica = jax.tree.map(lambda a, one=one: a[one], (new, metrics))
        for a, b in zip(*map(jax.tree.leaves, (replica, (whole, whole_metrics))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
