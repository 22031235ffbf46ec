"""Standardised latents: statistics of the training weights, and the way there and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.meta_model.latents import (
    LatentSpace,
    Standardiser,
    by_class,
    fit_latent_statistics,
    posterior_means,
)
from tests.few_shot import small
from tests.layers.helpers import quick_jit

LATENTS, FLAT = (small.parts(form).latents for form in ("token", "mlp"))
encode = quick_jit(LatentSpace.encode)


def _heads(shot, seed):
    """Random heads of tasks of so many images a class, and their contexts."""
    table = small.table(tasks=8, shot=shot, seed=seed)
    shape = (len(table), small.WAY, small.WIDTH + 1)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32), table.context()


EXAMPLES = [_heads(1, 0), _heads(4, 1)]


@pytest.mark.parametrize("axis", [(0,), (0, 1)])
def test_standardised_values_have_zero_mean_and_unit_variance(axis):
    values = 4.0 + 3.0 * jax.random.normal(jax.random.key(2), (200, 3, 2))
    values = values.at[..., 1].set(7.0)  # never varies: must not be divided by zero
    statistics = Standardiser.fit(values, axis)
    standard = statistics.apply(values)
    np.testing.assert_allclose(standard.mean(axis), 0.0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis)[..., 0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(standard[..., 1], 0.0, atol=1e-5)
    np.testing.assert_allclose(statistics.invert(standard), values, rtol=1e-5)


def test_latent_statistics_are_those_of_all_examples():
    means = [
        posterior_means(LATENTS.codec, LATENTS.variables, LATENTS.target, heads, context)
        for heads, context in EXAMPLES
    ]
    statistics = fit_latent_statistics(LATENTS.codec, means)
    standard = LATENTS.replace(statistics=statistics)
    found = np.concatenate([encode(standard, heads, context) for heads, context in EXAMPLES])
    np.testing.assert_allclose(found.mean((0, 1)), 0.0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1)), 1.0, rtol=1e-3)


def test_flat_latents_have_statistics_of_every_entry():
    heads, context = EXAMPLES[0]
    means = posterior_means(FLAT.codec, FLAT.variables, FLAT.target, heads, context)
    statistics = fit_latent_statistics(FLAT.codec, [means[:3], means[3:]])
    assert statistics.mean.shape == means.shape[1:] == (4, 4, 2)
    np.testing.assert_allclose(statistics.mean, means.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics.std, means.std(0), rtol=1e-3)


@pytest.mark.parametrize("chunk", [3, 4, 100])
def test_posterior_means_in_chunks_are_those_of_all_at_once(chunk):
    heads, context = EXAMPLES[1]
    found = posterior_means(LATENTS.codec, LATENTS.variables, LATENTS.target, heads, context, chunk)
    x1 = LATENTS.target.normalise(heads, context)
    expected = LATENTS.codec.apply(LATENTS.variables, x1, method="encode").mode()
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_latents_are_decoded_to_targets_and_these_to_weights():
    heads, context = EXAMPLES[1]
    z = encode(LATENTS, heads, context)
    code = LATENTS.statistics.invert(z)
    x1 = LATENTS.codec.apply(LATENTS.variables, code, method="decode")
    np.testing.assert_allclose(LATENTS.targets(z), x1, atol=1e-5)
    expected = LATENTS.target.restore(x1, context)
    np.testing.assert_allclose(LATENTS.decode(z, context), expected, atol=1e-5)


def test_a_latent_has_a_code_for_each_class_of_the_condition_or_is_as_trained():
    condition = {"features": jnp.zeros((2, 7, 4)), "shots": jnp.zeros((2, 7, 1))}
    assert by_class(LATENTS.codec) and not by_class(FLAT.codec) and not by_class(object())
    assert LATENTS.latent_shape((3, 5), condition) == (7, 5)
    assert FLAT.latent_shape((4, 4, 2), condition) == (4, 4, 2)
