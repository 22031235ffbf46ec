"""Adjoint matching against what is known of Gaussians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.flow import (
    adjoint_matching_loss,
    adjoint_targets,
    drawn_steps,
    lean_adjoint,
    memoryless_sample,
    sample,
)

M, S2 = 0.7, 0.25  # of the data


def gaussian(mean, variance, tau=1.0):
    """The exact velocity from N(0, tau^2) to N(mean, variance)."""

    def velocity(x, t, condition=None):
        d = tau**2 * (1 - t) ** 2 + t**2 * variance
        return mean + (t * variance - tau**2 * (1 - t)) / d * (x - t * mean)

    return velocity


def starts(count, tau=1.0):
    return tau * jax.random.normal(jax.random.key(1), (count, 1))


@pytest.mark.parametrize(("tau", "steps"), [(1.0, 400), (0.25, 400)])
def test_the_memoryless_sde_ends_as_the_flow_does_and_forgets_its_start(tau, steps):
    x0 = starts(20_000, tau)
    _, x1 = memoryless_sample(
        gaussian(M, S2, tau), jax.random.key(0), x0, steps=steps, temperature=tau
    )
    assert abs(float(x1.mean()) - M) < 0.015
    assert abs(float(x1.var()) / S2 - 1) < 0.05
    assert abs(np.corrcoef(x0[:, 0], x1[:, 0])[0, 1]) < 0.03


def test_the_adjoint_of_a_linear_reward_is_known():
    lam, steps = 1.5, 400
    states, _ = memoryless_sample(gaussian(M, S2), jax.random.key(0), starts(3), steps=steps)
    a, mean = lean_adjoint(gaussian(M, S2), lambda x: lam * x[:, 0], states)
    t = np.arange(steps) / steps
    expected = -lam * S2 * t / ((1 - t) ** 2 + t**2 * S2)
    np.testing.assert_allclose(a[:, 0, 0], expected, atol=0.03)
    np.testing.assert_allclose(a[:, 1], a[:, 0], atol=1e-5)  # of any path
    assert float(mean) == pytest.approx(
        lam * float((states[-1] + gaussian(M, S2)(states[-1], 1 - 1 / steps) / steps).mean()),
        rel=1e-4,
    )


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_a_linear_reward_shifts_the_mean(tau):
    lam, steps = 1.5, 200  # a narrow source needs more of them
    base = gaussian(M, S2, tau)

    def tuned(x, t, condition=None):
        d = tau**2 * (1 - t) ** 2 + t**2 * S2
        return base(x, t) + tau**2 * lam * S2 * (1 - t) / d

    found = adjoint_targets(
        base,
        base,
        lambda x: lam * x[:, 0],
        jax.random.key(0),
        starts(2, tau),
        steps=400,
        temperature=tau,
    )
    change = found.v - jax.vmap(base)(found.x, found.t)
    expected = jax.vmap(tuned)(found.x, found.t) - jax.vmap(base)(found.x, found.t)
    np.testing.assert_allclose(change[40:], expected[40:], rtol=0.04, atol=0.005)
    # It is where the loss is smallest.
    at = adjoint_matching_loss(tuned, found)
    for wrong in (base, lambda x, t, c=None: 2 * tuned(x, t) - base(x, t)):
        assert float(adjoint_matching_loss(wrong, found)) > 20 * float(at)
    x0 = starts(20_000, tau)
    both = [
        memoryless_sample(v, jax.random.key(0), x0, steps=steps, temperature=tau)[1].mean()
        for v in (tuned, base)
    ]
    assert float(both[0] - both[1]) == pytest.approx(lam * S2, rel=0.04)


def test_a_quadratic_reward_is_reached_by_rounds_of_matching():
    lam, goal, steps, count = 2.0, -0.3, 40, 6000
    base = gaussian(M, S2)

    def velocity_of(params):
        def velocity(x, t, condition=None):
            k = jnp.round(t * steps).astype(int)
            return base(x, t) + params[k, 0] + params[k, 1] * x

        return velocity

    def reward(x):
        return -lam / 2 * jnp.square(x[:, 0] - goal)

    @jax.jit
    def round_of(params, key):
        key_start, key_path = jax.random.split(key)
        x0 = jax.random.normal(key_start, (count, 1))
        found = adjoint_targets(velocity_of(params), base, reward, key_path, x0, steps=steps)
        left = found.v - jax.vmap(base)(found.x, found.t)
        # The smallest loss of a line in x at each step: least squares.
        x, y = found.x[..., 0], left[..., 0]
        slope = ((x - x.mean(1, keepdims=True)) * y).mean(1) / x.var(1)
        fitted = jnp.stack([y.mean(1) - slope * x.mean(1), slope], 1)
        return params + 0.5 * (fitted - params), found.reward

    params, rewards = jnp.zeros((steps, 2)), []
    for number in range(20):
        params, mean = round_of(params, jax.random.key(number))
        rewards.append(float(mean))
    variance = S2 / (1 + lam * S2)
    mean = variance * (M / S2 + lam * goal)
    x0 = starts(20_000)
    _, ends = memoryless_sample(velocity_of(params), jax.random.key(9), x0, steps=steps)
    assert float(ends.mean()) == pytest.approx(mean, rel=0.05)
    assert float(ends.var()) == pytest.approx(variance, rel=0.15)
    assert rewards[-1] > rewards[0] + 0.2
    ode = sample(lambda x, t, c: velocity_of(params)(x, jnp.floor(t * steps) / steps), x0, steps=40)
    assert float(ode.x1.mean()) == pytest.approx(mean, rel=0.15)


def test_only_the_tuned_velocity_gets_a_gradient():
    base = gaussian(M, S2)

    def loss(params):
        def velocity(x, t, condition=None):
            return base(x, t) + params["bias"] + 0 * condition

        condition = jnp.ones((4, 1))
        found = adjoint_targets(
            velocity,
            lambda x, t, c: base(x, t) * params["scale"],
            lambda x: params["reward"] * x.sum(1),
            jax.random.key(0),
            starts(4),
            condition,
            steps=5,
        )
        return adjoint_matching_loss(velocity, found, condition)

    found = jax.grad(loss)({"bias": 0.1, "scale": 1.0, "reward": 2.0})
    assert found["bias"] != 0 and found["scale"] == found["reward"] == 0


def test_steps_are_chosen_and_large_values_cut_off():
    chosen = np.asarray(drawn_steps(jax.random.key(0), 40, last=10, others=5))
    assert len(set(chosen)) == 15 and set(range(30, 40)) < set(chosen)
    assert len({tuple(np.asarray(drawn_steps(jax.random.key(k), 40))) for k in range(5)}) == 5
    base = gaussian(M, S2)
    found = adjoint_targets(
        base, base, lambda x: 100 * x[:, 0], jax.random.key(0), starts(4), steps=10
    )
    values = [adjoint_matching_loss(base, found, chosen=jnp.asarray([k])) for k in range(10)]
    whole = adjoint_matching_loss(base, found)
    np.testing.assert_allclose(np.mean(values), whole, rtol=1e-5)
    assert float(adjoint_matching_loss(base, found, largest=2.0)) <= 2.0 < float(whole)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"x0": jnp.zeros((2, 1), int)}, "x0 must be floats"),
    ],
)
def test_what_makes_no_sense_is_refused(values, sentence):
    options = {"x0": starts(2), "steps": 4, "temperature": 1.0, **values}
    x0 = options.pop("x0")
    with pytest.raises(UserError, match=sentence):
        memoryless_sample(gaussian(M, S2), jax.random.key(0), x0, **options)
    with pytest.raises(UserError, match="steps must be at least 20"):
        drawn_steps(jax.random.key(0), 10)
