"""Latents from conditions: closed forms, and what a draw must not depend on."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import flow
from flown_jax.flow import diffusion
from flown_jax.meta_model.sampling import (
    each_row,
    regress,
    row_by_row,
    rows,
    sample_diffusion,
    sample_flow,
    sample_keys,
    several,
)

CONDITION = {"features": jnp.arange(12.0).reshape(3, 2, 2), "shots": jnp.ones((3, 2, 1))}
SHAPE = (2, 2)
KEYS = jax.random.split(jax.random.key(0))
GAUSSIAN = flow.get_source("gaussian")
SCHEDULE = diffusion.iddpm_linear_schedule(50)


class Toward:
    """A network that goes to the condition's features; its parameter is how fast."""

    @staticmethod
    def apply(params, x, t, condition):
        return params * (condition["features"] - x)


from_flow = partial(sample_flow, source=GAUSSIAN, latent_shape=SHAPE, solver="euler", steps=4)
from_diffusion = partial(sample_diffusion, schedule=SCHEDULE, latent_shape=SHAPE, steps=5)


def of(condition, chosen):
    """Some rows of a condition."""
    return jax.tree.map(lambda leaf: leaf[chosen], condition)


def test_a_flow_goes_from_the_source_times_its_temperature_or_from_where_it_is_told():
    c, x0 = CONDITION["features"], GAUSSIAN(KEYS[0], (3, *SHAPE))
    found, nfe = from_flow(KEYS[0], Toward, 1.0, CONDITION, temperature=0.3)
    np.testing.assert_allclose(found, c + 0.75**4 * (0.3 * x0 - c), rtol=1e-5)
    assert float(nfe) == 4
    told, nfe = from_flow(KEYS[1], Toward, 1.0, CONDITION, x0=2 * x0, solver="heun")
    once = 1 - 0.25 + 0.25**2 / 2
    np.testing.assert_allclose(told, c + once**4 * (2 * x0 - c), rtol=1e-5)
    assert float(nfe) == 8


def test_a_diffusion_takes_so_many_steps_from_noise():
    found, nfe = from_diffusion(KEYS[0], Toward, 0.1, CONDITION)
    other, _ = from_diffusion(KEYS[1], Toward, 0.1, CONDITION)
    assert found.shape == (3, *SHAPE) and float(nfe) == 5
    assert float(jnp.abs(found - other).min()) > 1e-4
    start, _ = jax.random.split(KEYS[0])

    def model(x, t, condition):
        # The network sees times in [0, 1], as a flow's.
        return Toward.apply(0.1, x, t / len(SCHEDULE), condition)

    expected = diffusion.sample_ddpm(
        model,
        jax.random.split(KEYS[0])[1],
        jax.random.normal(start, (3, *SHAPE)),
        CONDITION,
        SCHEDULE,
        steps=5,
    )
    np.testing.assert_allclose(found, expected.x1, rtol=1e-5)


def test_at_temperature_zero_neither_start_nor_steps_of_a_diffusion_have_noise():
    cold, other = (from_diffusion(k, Toward, 0.1, CONDITION, temperature=0.0)[0] for k in KEYS)
    np.testing.assert_array_equal(cold, other)
    assert float(jnp.abs(cold).max()) > 0
    # Below 1 both are less: how far samples are apart falls with it.
    warm, another = (from_diffusion(k, Toward, 0.1, CONDITION, temperature=0.5)[0] for k in KEYS)
    hot, third = (from_diffusion(k, Toward, 0.1, CONDITION)[0] for k in KEYS)
    np.testing.assert_allclose(2 * (warm - another), hot - third, rtol=1e-3, atol=1e-4)


def test_a_regression_is_the_network_at_zero():
    found = regress(Toward, 0.7, CONDITION, SHAPE)
    np.testing.assert_allclose(found, 0.7 * CONDITION["features"], rtol=1e-6)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    draw = partial(from_flow, network=Toward, params=1.0, condition=CONDITION)
    few, nfe = several(draw, KEYS[0], 2)
    many, _ = several(draw, KEYS[0], 5)
    assert few.shape == (2, 3, *SHAPE) and float(nfe) == 4
    np.testing.assert_allclose(few, many[:2], rtol=1e-6)
    assert float(jnp.abs(many[0] - many[1]).max()) > 1e-3
    np.testing.assert_allclose(few[1], draw(sample_keys(KEYS[0], 2)[1])[0], rtol=1e-6)


def of_so_many(key, shape):
    """A source whose rows depend on how many there are."""
    return jax.random.normal(jax.random.fold_in(key, shape[0]), shape)


@pytest.mark.parametrize("source", [GAUSSIAN, flow.get_source("kaiming_uniform"), of_so_many])
def test_a_row_of_a_source_does_not_depend_on_how_many_rows_are_drawn(source):
    few, many = (each_row(source)(KEYS[0], (count, *SHAPE)) for count in (2, 7))
    assert many.shape == (7, *SHAPE)
    np.testing.assert_array_equal(few, many[:2])
    assert len(np.unique(many)) == many.size
    own = source(sample_keys(KEYS[0], 7)[4], (1, *SHAPE))[0]
    np.testing.assert_allclose(many[4], own, rtol=1e-6)


def test_a_flow_from_each_rows_own_source_gives_rows_of_their_own():
    draw = partial(from_flow, KEYS[0], Toward, 1.0, source=each_row(GAUSSIAN))
    every, _ = draw(CONDITION)
    few, _ = draw(of(CONDITION, slice(0, 2)))
    np.testing.assert_allclose(few, every[:2], rtol=1e-6)


@pytest.mark.parametrize("sample", [from_flow, from_diffusion])
def test_row_by_row_a_row_depends_on_its_condition_and_its_place_alone(sample):
    def draw(key, condition):
        assert rows(condition) == 1
        return sample(key, Toward, 0.1, condition)

    every, nfe = row_by_row(draw, KEYS[0], CONDITION)
    assert every.shape == (3, *SHAPE)
    np.testing.assert_array_equal(nfe, {from_flow: 4, from_diffusion: 5}[sample])
    few, _ = row_by_row(draw, KEYS[0], of(CONDITION, slice(0, 2)))
    np.testing.assert_allclose(few, every[:2], rtol=1e-6)
    other, _ = row_by_row(draw, KEYS[0], of(CONDITION, jnp.asarray([2, 1])))
    np.testing.assert_allclose(other[1], every[1], rtol=1e-6)
    assert float(jnp.abs(other[0] - every[0]).max()) > 1e-3
    # Rows of equal conditions are different draws.
    equal, _ = row_by_row(draw, KEYS[0], of(CONDITION, jnp.zeros(2, int)))
    assert float(jnp.abs(equal[0] - equal[1]).max()) > 1e-3
