"""Optimizers against their formulas (and PyTorch's, where it is installed)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.errors import UserError
from flown_jax.training import adam, adamw, sgd
from flown_jax.training.optimizers import ema_update, rate

GRADIENTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
START = np.asarray([0.5, -1.0, 2.0, 0.1], np.float32)


def run(optimizer):
    params, state = jnp.asarray(START), optimizer.init(jnp.asarray(START))
    for gradient in GRADIENTS:
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


CASES = {
    "adamw": (adamw(0.01, weight_decay=0.1, steps=6), "AdamW", {"weight_decay": 0.1}),
    "adam": (adam(0.01, weight_decay=0.1, steps=6), "Adam", {"weight_decay": 0.1}),
    "sgd": (
        sgd(0.01, momentum=0.9, nesterov=False, weight_decay=0.1, steps=6),
        "SGD",
        {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "nesterov": (
        sgd(0.01, momentum=0.9, nesterov=True, weight_decay=0.1, steps=6),
        "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "plain": (sgd(0.01, momentum=0.0, nesterov=False, weight_decay=0.0, steps=6), "SGD", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch(case):
    torch = pytest.importorskip("torch")
    ours, name, options = CASES[case]
    weight = torch.nn.Parameter(torch.tensor(START))
    theirs = getattr(torch.optim, name)([weight], lr=0.01, **options)
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient)
        theirs.step()
    # Six float32 steps: rounding only.
    np.testing.assert_allclose(run(ours), weight.detach().numpy(), rtol=2e-6, atol=1e-6)


def test_clip_bounds_the_gradient_before_the_moments():
    clipped = sgd(1.0, momentum=0.0, nesterov=False, weight_decay=0.0, steps=6, clip=0.5)
    updates, _ = clipped.update(jnp.asarray(GRADIENTS[0]), clipped.init(START), START)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-6)


def test_rate_rises_linearly_then_follows_the_cosine_to_zero():
    values = [float(rate(2.0, 14, "cosine", warmup=4)(i)) for i in range(15)]
    np.testing.assert_allclose(values[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(values[9], 1.0, rtol=1e-6)
    assert values[14] == pytest.approx(0.0, abs=1e-7)
    assert float(rate(2.0, 10, "constant")(7)) == 2.0


def test_unknown_schedule_and_long_warmup_are_refused():
    with pytest.raises(UserError, match="'constant' or 'cosine', not 'linear'"):
        rate(1.0, 10, "linear")
    with pytest.raises(UserError, match=r"warmup \(10\) must be shorter"):
        rate(1.0, 10, "cosine", warmup=10)


def test_average_ramps_up_to_its_decay():
    average, one = {"a": jnp.zeros(())}, {"a": jnp.ones(())}
    first = ema_update(average, one, jnp.asarray(1), 0.999)
    np.testing.assert_allclose(first["a"], 1 - 2 / 11, rtol=1e-6)
    late = ema_update(average, one, jnp.asarray(10**6), 0.999)
    np.testing.assert_allclose(late["a"], 1e-3, rtol=1e-4)
    unramped = ema_update(average, one, jnp.asarray(1), 0.9, ramp=False)
    np.testing.assert_allclose(unramped["a"], 0.1, rtol=1e-6)
    kept = ema_update(jax.tree.map(jnp.bfloat16, average), one, jnp.asarray(1), 0.9)
    assert kept["a"].dtype == jnp.bfloat16
