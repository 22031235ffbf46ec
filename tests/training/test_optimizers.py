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

pytestmark = pytest.mark.fast

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
    with pytest.raises(UserError, match="'constant', 'cosine' or 'multistep', not 'linear'"):
        rate(1.0, 10, "linear")
    with pytest.raises(UserError, match=r"warmup \(10\) must be shorter"):
        rate(1.0, 10, "cosine", warmup=10)


TORCH_SCHEDULES = {
    "MultiStepLR": (
        {"milestones": [3, 7, 9], "gamma": 0.2},
        {"schedule": "multistep", "milestones": (3, 0.7, 9), "gamma": 0.2},
    ),
    "CosineAnnealingLR": (
        {"T_max": 10, "eta_min": 0.03},
        {"schedule": "cosine", "floor": 0.03},
    ),
}


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_schedules_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    theirs, ours = TORCH_SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **theirs)
    wanted = []
    for _ in range(10):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    found = [float(rate(0.5, 10, **ours)(i)) for i in range(10)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_milestones_are_steps_or_shares_of_the_run():
    shares = rate(1.0, 40, "multistep", milestones=(0.25, 0.5), gamma=0.1, floor=0.05)
    values = [float(shares(i)) for i in (0, 9, 10, 19, 20, 39)]
    np.testing.assert_allclose(values, [1.0, 1.0, 0.1, 0.1, 0.05, 0.05], rtol=1e-6)


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ({"schedule": "multistep"}, "needs milestones above 0, not none"),
        ({"schedule": "multistep", "milestones": (5, 0)}, r"not \[5, 0\]"),
        ({"schedule": "cosine", "floor": 2.0}, "the floor 2.0 is above the learning rate 1.0"),
    ],
)
def test_curves_that_cannot_be_are_refused(curve, sentence):
    with pytest.raises(UserError, match=sentence):
        rate(1.0, 10, **curve)


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
