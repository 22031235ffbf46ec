"""Kernel density: bandwidths of scipy, moments of draws, prefixes, members."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import gaussian_kde

from flown_jax.errors import UserError
from flown_jax.flow import density
from tests.layers.helpers import quick_jit

LATENTS = jnp.asarray(
    np.random.default_rng(0).normal([1, -2, 0], [1, 3, 0.2], (40, 3)), jnp.float32
)
KEYS = jax.random.split(jax.random.key(1), 20_000)


@pytest.mark.parametrize("rule", density.RULES)
def test_bandwidths_are_those_of_scipy(rule):
    kde = gaussian_kde(np.asarray(LATENTS, float).T, rule)
    found = density.rule_bandwidth(LATENTS, rule)
    np.testing.assert_allclose(found, np.sqrt(np.diag(kde.covariance)), rtol=1e-5)
    # The shape of a latent does not matter, and every dimension may be taken alone.
    shaped = density.rule_bandwidth(LATENTS.reshape(40, 3, 1), rule)
    np.testing.assert_allclose(shaped, found[:, None], rtol=1e-6)
    alone = gaussian_kde(np.asarray(LATENTS[:, 1], float), rule)
    one = density.rule_bandwidth(LATENTS, rule, dims=1)[1]
    assert float(one) == pytest.approx(float(np.sqrt(alone.covariance[0, 0])), rel=1e-5)


@pytest.mark.parametrize("bandwidth", [0.7, jnp.array([0.1, 2.0, 0.5]), "scott", "silverman"])
def test_draws_have_the_moments_of_members_plus_noise(bandwidth):
    draws = density.sample(KEYS, LATENTS, bandwidth)
    std = density.rule_bandwidth(LATENTS, bandwidth) if isinstance(bandwidth, str) else bandwidth
    expected = jnp.cov(LATENTS.T, ddof=0) + jnp.diag(jnp.broadcast_to(jnp.asarray(std), (3,)) ** 2)
    scale = jnp.sqrt(jnp.diag(expected))
    # Five standard errors of 20,000 draws.
    np.testing.assert_allclose((draws.mean(0) - LATENTS.mean(0)) / scale, np.zeros(3), atol=0.035)
    errors = (jnp.cov(draws.T) - expected) / (scale[:, None] * scale)
    np.testing.assert_allclose(errors, np.zeros((3, 3)), atol=0.05)


def test_a_draw_depends_on_its_key_only():
    maps = LATENTS[:36].reshape(9, 2, 2, 3)
    sample = quick_jit(density.sample)
    draws = sample(KEYS[:7], maps, 0.5)
    assert draws.shape == (7, 2, 2, 3)
    np.testing.assert_array_equal(sample(KEYS[:3], maps, 0.5), draws[:3])
    np.testing.assert_allclose(density.sample(KEYS[4], maps, 0.5), draws[4], atol=1e-6)


def test_without_bandwidth_draws_are_members_equally_likely():
    draws = np.asarray(density.sample(KEYS, LATENTS, 0))
    members, counts = np.unique(draws, axis=0, return_counts=True)
    np.testing.assert_array_equal(members, np.unique(LATENTS, axis=0))
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: density.rule_bandwidth(LATENTS, "wide"), "'wide' is unknown; .* silverman, scott"),
        (lambda: density.sample(KEYS[0], LATENTS, "wide"), "'wide' is unknown"),
        (lambda: density.rule_bandwidth(LATENTS[:1]), "two latents or more"),
        (lambda: density.sample(KEYS[0], LATENTS, -0.1), "bandwidth must be .*, got -0.1"),
        (lambda: density.sample(KEYS[0], LATENTS, float("nan")), "bandwidth must be .*, got nan"),
        (lambda: density.sample(KEYS[0], LATENTS[0]), r"not float32 \(3,\)"),
        (lambda: density.sample(KEYS[0], jnp.ones((2, 3), int)), "not int32"),
    ],
)
def test_mistakes_are_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
