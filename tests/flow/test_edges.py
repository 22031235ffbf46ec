"""Numbers that mean nothing, and the edges of what does: half precision, few steps, no data."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import flow
from flown_jax.flow import diffusion

KEY, X = jax.random.key(0), jnp.ones((2, 3))
SCHEDULE = flow.linear_schedule(10, 1e-4, 0.02)
GAUSSIAN = flow.get_source("gaussian")
ENTROPIC = functools.partial(flow.entropic_ot, reg=0.1)
NO_COUNTS = (0, -1, 2.5, True, float("nan"), "three", None)


def noise(x, t, condition):
    return 0.5 * x


def velocity(x, t, condition):
    return -x


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_sampled_as_float32(dtype):
    half = X.astype(dtype)
    for options in ({}, {"temperature": 0.5}, {"method": "ddim", "eta": 0.5}):
        found = flow.sample_ddpm(noise, KEY, half, None, SCHEDULE, **options).x1
        expected = flow.sample_ddpm(noise, KEY, X, None, SCHEDULE, **options).x1
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)
    # A single step is of the type that it is given.
    times = jnp.array([3, 0])
    for step in (diffusion.ancestral_step, diffusion.ddim_step):
        assert step(SCHEDULE, half, half, times, half).dtype == dtype


@pytest.mark.parametrize("make", [flow.linear_schedule, flow.ldm_schedule])
@pytest.mark.parametrize("method", ["ancestral", "ddim"])
def test_a_schedule_of_one_step_samples(make, method):
    end = flow.sample_ddpm(noise, KEY, X, None, make(1, 1e-4, 0.02), method=method).x1
    assert bool(jnp.isfinite(end).all())


@pytest.mark.parametrize("steps", NO_COUNTS)
def test_steps_are_whole_numbers(steps):
    for call in (
        lambda: flow.sample(velocity, X, steps=steps),
        lambda: diffusion.space_timesteps(10, "none" if steps is None else steps),
        lambda: diffusion.ldm_ddim_steps(SCHEDULE, steps, 0.0),
        lambda: flow.linear_schedule(steps, 1e-4, 0.02),
        lambda: flow.ldm_schedule(steps, 1e-4, 0.02),
        lambda: flow.iddpm_linear_schedule(steps),
        lambda: flow.sample(velocity, X, solver="tsit5", max_steps=steps),
        lambda: flow.ot_plan(np.ones((2, 2)), "sinkhorn", reg=1.0, iterations=steps),
    ):
        with pytest.raises(ValueError, match=r"must be a(t least| whole| number)"):
            call()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, True, "one"])
def test_numbers_are_finite_and_large_enough(value):
    for call in (
        lambda: flow.sample_ddpm(noise, KEY, X, None, SCHEDULE, temperature=value),
        lambda: flow.sample_ddpm(noise, KEY, X, None, SCHEDULE, method="ddim", eta=value),
        lambda: diffusion.ddim_step(SCHEDULE, X, X, jnp.array([1, 2]), X, eta=value),
        lambda: flow.sample(velocity, X, solver="tsit5", rtol=value),
        lambda: flow.sample(velocity, X, solver="tsit5", dt0=value),
        lambda: flow.entropic_ot(KEY, X, X, reg=value),
        lambda: flow.get_coupling("entropic_ot", reg=value),
        lambda: flow.get_source("gaussian", value),
        lambda: flow.LinearPath(value),
        lambda: flow.SchrodingerBridgePath(value),
        lambda: flow.Polynomial(value),
        lambda: flow.VP(value),
        lambda: flow.ldm_schedule(3, value, 0.02),
        lambda: flow.skewed_time(std=value),
    ):
        with pytest.raises(ValueError, match=r"must be a finite number.*, got"):
            call()
    if value != -1.0:
        with pytest.raises(ValueError, match="guidance_scale must be a finite number"):
            flow.guided_velocity(velocity, value, X[:1])


@pytest.mark.parametrize("times", [[0, np.nan, 1], [0, np.inf], [0.5, 0.5], [0.5], []])
def test_times_are_finite_and_ordered(times):
    with pytest.raises(ValueError, match="at least two, finite, strictly"):
        flow.sample(velocity, X, ts=times)


@pytest.mark.parametrize("keep", [[-1, 5], [3, 10], [0.5, 2.0], []])
def test_timesteps_that_are_kept_are_those_of_the_schedule(keep):
    with pytest.raises(ValueError, match="the kept timesteps must be"):
        flow.respace(SCHEDULE, keep)


def test_a_time_outside_of_the_schedule_is_refused():
    with pytest.raises(ValueError, match=r"times must lie in 0\.\.9, got \[-1, 12\]"):
        diffusion.q_sample(SCHEDULE, X, jnp.array([-1, 12]), X)


@pytest.mark.parametrize("coupling", [flow.independent, flow.exact_ot, ENTROPIC])
def test_batches_of_one_and_none_are_coupled(coupling):
    assert coupling(KEY, X[:1], -X[:1]).tolist() == [0]
    assert coupling(KEY, X[:0], X[:0]).shape == (0,)
    with pytest.raises(ValueError, match="must have one shape"):
        coupling(KEY, jnp.ones(()), jnp.ones(()))


@pytest.mark.parametrize("coupling", [flow.exact_ot, ENTROPIC])
def test_what_is_not_finite_is_not_paired(coupling):
    with pytest.raises(ValueError, match="must be finite to be paired"):
        coupling(KEY, X.at[0, 0].set(jnp.nan), X)


def test_plans_of_nothing_and_of_nan_are_refused():
    for cost in (np.zeros((0, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match="neither of them 0"):
            flow.ot_plan(cost)
    for options in ({}, {"method": "sinkhorn", "reg": 1.0}):
        with pytest.raises(ValueError, match="needs finite costs"):
            flow.ot_plan(np.full((2, 2), np.nan), **options)
    for uniforms in ([np.nan], [1.0], [-0.1]):
        with pytest.raises(ValueError, match=r"numbers in \[0, 1\)"):
            flow.ot_pair(np.ones((2, 2)), uniforms)
    with pytest.raises(ValueError, match="no finite positive mass"):
        flow.ot_pair([[2.0, -1.0]], [0.5])


@pytest.mark.parametrize("x", [X[:0], jnp.ones((2, 3), int), jnp.ones(())])
def test_losses_and_likelihoods_want_data(x):
    """The mean of none is NaN, and the source of whole numbers would be cut to such."""
    path = {"path": flow.LinearPath(), "coupling": flow.independent, "source": GAUSSIAN}
    for call in (
        lambda: flow.cfm_loss(velocity, KEY, x, **path),
        lambda: flow.ddpm_loss(noise, KEY, x, None, SCHEDULE),
        lambda: flow.log_likelihood(velocity, x, log_p0=GAUSSIAN.log_prob, steps=2),
    ):
        with pytest.raises(ValueError, match="must be floats"):
            call()


def test_a_sample_that_does_not_move_has_a_straight_way():
    found = flow.path_statistics(lambda x, t, c: 0 * x, X, steps=2)
    np.testing.assert_array_equal(found.length_ratio, [1, 1])


def test_a_source_remembers_the_latents_that_a_flow_was_trained_on():
    for name in ("kaiming_normal", "kaiming_uniform", "kaiming_uniform_linear"):
        source = flow.get_source(name, 0.7)
        trained = source.trained_on((3, 4))
        for shape in ((9, 3, 4), (2, 6, 4), (2, 2, 4)):
            assert trained.std(shape) == source.std((1, 3, 4))
        x0 = trained(KEY, (4000, 6, 4))
        assert float(x0.std()) == pytest.approx(source.std((1, 3, 4)), rel=0.02)
        assert bool(jnp.isfinite(trained.log_prob(x0)).all())
    assert GAUSSIAN.trained_on((3, 4)).is_standard_normal


def test_samplers_take_a_batch_of_none():
    for name in ("euler", "tsit5"):
        assert flow.sample(velocity, X[:0], solver=name, steps=2).x1.shape == (0, 3)
    assert flow.sample_ddpm(noise, KEY, X[:0], None, SCHEDULE).x1.shape == (0, 3)
