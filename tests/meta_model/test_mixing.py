"""Mixes of latents and the distance that they shall keep: closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.meta_model import mixing
from tests.layers.helpers import quick_jit

KEY = jax.random.key(0)


def mixed(latents, members=3, noise=0.0, **options):
    found = mixing.mixed(KEY, jnp.asarray(latents), 400, members, noise, **options)
    return np.asarray(found)


def test_a_mix_has_different_members_and_shares_of_one():
    shares = mixed(np.eye(6))  # rows are the shares themselves
    assert shares.shape == (400, 6) and shares.min() >= 0
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal((shares > 0).sum(1), 3)
    assert np.all((shares > 0).any(0))
    # Of equal latents a mix is that latent, of any shape.
    one = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_allclose(mixed(np.stack([one] * 6)), np.stack([one] * 400), rtol=1e-5)


def test_shares_of_two_members_are_even_ones():
    share = mixed(np.array([[0.0], [1.0]]), members=2)[:, 0]
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    np.testing.assert_allclose(np.quantile(share, quantiles), quantiles, atol=0.07)


def test_much_concentration_gives_means():
    shares = mixed(np.eye(6), concentration=1e8)
    np.testing.assert_allclose(shares[shares > 0], 1 / 3, atol=1e-3)


def test_noise_comes_on_top():
    latents = np.eye(6, 50)
    noise = mixed(latents, noise=0.3) - mixed(latents)  # the same members and shares
    np.testing.assert_allclose(noise.std(), 0.3, rtol=0.03)
    np.testing.assert_allclose(noise.mean(), 0, atol=0.01)


def test_shortfall_of_equal_rows_has_a_gradient():
    rows = np.zeros((3, 4), np.float32)
    rows[2, 0] = 0.5
    slope = quick_jit(jax.value_and_grad(mixing.shortfall))
    value, gradient = slope(jnp.asarray(rows), 0.8)
    # Pairs at distances 0, .5 and .5.
    np.testing.assert_allclose(value, (0.8**2 + 2 * 0.3**2) / 3, rtol=1e-3)
    assert np.isfinite(gradient).all()
    assert gradient[2, 0] < 0 < gradient[0, 0]  # downhill is apart
    assert mixing.shortfall(jnp.asarray(rows[:1]), 0.8) == 0


def test_two_sides_miss_what_is_too_far_as_well():
    rows = jnp.asarray(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.4]], np.float32))
    distances = np.array([1.0, 0.4, np.sqrt(1.16)])
    found = mixing.shortfall(rows, 0.7, "two_sided")
    np.testing.assert_allclose(found, np.mean((0.7 - distances) ** 2), rtol=1e-5)
    one = mixing.shortfall(rows, 0.7)
    np.testing.assert_allclose(one, 0.3**2 / 3, rtol=1e-5)
    with pytest.raises(ValueError, match="'both'; it must be one_sided or two_sided"):
        mixing.shortfall(rows, 0.7, "both")


def test_outside_is_what_is_longer_than_networks_of_the_zoo():
    # Independent networks at distance 1 of each other lie at the radius.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4000)) / np.sqrt(2 * 4000)
    assert mixing.outside(jnp.asarray(x)) < 1e-3
    np.testing.assert_allclose(mixing.outside(jnp.asarray(3 * x)), 4 / 2, rtol=0.05)
    slope = quick_jit(jax.grad(lambda x: mixing.outside(x)))(jnp.zeros((2, 3)))
    assert np.isfinite(slope).all() and not np.any(slope)


def test_normal_codes_know_no_network():
    codes = mixing.Mixing(mixes=4000, members=2, normal=True)
    found = codes.of(KEY, jnp.full((3, 2), 7.0), noise=0.5)
    assert found.shape == (4000, 2)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(found.std(0), 1, rtol=0.05)
