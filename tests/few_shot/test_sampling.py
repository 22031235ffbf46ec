"""Drawing heads: what they depend on, and what they must not depend on."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.few_shot import sampling
from flown_jax.flow import diffusion
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.condition import noisy_condition
from flown_jax.meta_model.sampling import sample_diffusion, sample_flow
from tests.few_shot import small
from tests.layers.helpers import quick_jit


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global PARTS, SUPPORT
    PARTS = {form: small.parts(form) for form in small.CODECS}
    SUPPORT = jnp.asarray(small.table().support())


STATIC = ("samples", "solver", "steps")
draw = quick_jit(sampling.draw_heads, static_argnames=STATIC)


@pytest.mark.parametrize("form", small.CODECS)
def test_heads_have_a_row_a_class_and_evaluations_are_counted(form):
    heads, nfe = draw(PARTS[form], jax.random.key(0), SUPPORT, samples=2, solver="heun", steps=3)
    assert heads.shape == (2, len(SUPPORT), small.WAY, small.WIDTH + 1)
    assert float(nfe) == 6
    assert not np.allclose(heads[0], heads[1])


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    few, _ = draw(PARTS["token"], jax.random.key(0), SUPPORT, samples=2)
    many, _ = draw(PARTS["token"], jax.random.key(0), SUPPORT, samples=5)
    np.testing.assert_allclose(few, many[:2], atol=1e-6)


def test_temperature_zero_makes_all_samples_one():
    heads, _ = draw(PARTS["token"], jax.random.key(0), SUPPORT, samples=3, temperature=0.0)
    np.testing.assert_allclose(heads[0], heads[2], atol=1e-6)


def test_heads_of_a_task_come_from_its_own_support():
    heads, _ = draw(PARTS["token"], jax.random.key(0), SUPPORT, samples=1)
    changed = SUPPORT.at[1].add(1.0)
    again, _ = draw(PARTS["token"], jax.random.key(0), changed, samples=1)
    np.testing.assert_allclose(heads[0, 0], again[0, 0], atol=1e-6)
    assert not np.allclose(heads[0, 1], again[0, 1], atol=1e-3)


def test_codes_of_classes_make_heads_of_any_number_of_classes():
    support = jnp.asarray(small.table(way=5).support())
    five, _ = draw(PARTS["token"], jax.random.key(0), support, samples=2)
    two, _ = draw(PARTS["token"], jax.random.key(0), support[:, :2], samples=2)
    assert five.shape == (2, 6, 5, small.WIDTH + 1) and two.shape == (2, 6, 2, small.WIDTH + 1)
    assert np.isfinite(five).all() and np.isfinite(two).all()
    # What a class's row is depends on the classes beside it.
    assert not np.allclose(two, five[:, :, :2], atol=1e-3)


def test_the_shot_is_the_supports_unless_it_is_told():
    parts = small.parts(entries=("features", "shots"))
    key, means = jax.random.key(0), SUPPORT.mean(2)
    given, _ = draw(parts, key, SUPPORT, samples=2)
    condition, sample = parts.conditioner(SUPPORT), quick_jit(Parts.sample, static_argnames=STATIC)

    def told(shot):
        context = {"prototypes": means, "shot": jnp.full(len(means), shot, jnp.float32)}
        return sample(parts, key, condition, context, samples=2)[0]

    np.testing.assert_allclose(told(small.SHOT), given, atol=1e-5)
    assert not np.allclose(told(1), given, atol=1e-3)
    # The support of one image a class stands for one, whatever the condition was made of.
    one, _ = draw(parts, key, means[:, :, None], samples=2, condition=condition)
    np.testing.assert_allclose(one, told(1), atol=1e-5)


def test_what_is_decoded_is_a_correction_to_the_base_head():
    latents = PARTS["token"].latents
    z = jax.random.normal(jax.random.key(2), (6, small.WAY, 3))
    base, context = sampling.base_heads(latents, SUPPORT), sampling.context_of(SUPPORT)
    nothing = {**context, "prototypes": jnp.zeros_like(context["prototypes"])}
    expected = base + latents.decode(z, nothing)
    np.testing.assert_allclose(latents.decode(z, context), expected, atol=1e-5)
    # Of heads, only what they add to it is coded.
    zero = latents.encode(jnp.zeros_like(base), nothing)
    np.testing.assert_allclose(latents.encode(base, context), zero, atol=1e-5)


def test_the_diffusion_twin_draws_heads_with_its_own_count():
    parts = PARTS["token"]
    schedule = diffusion.iddpm_linear_schedule(50)
    heads, nfe = sampling.draw_heads_with(
        jax.random.key(0),
        parts.velocity_params,
        parts.latents,
        parts.conditioner(SUPPORT),
        SUPPORT,
        sample=partial(sample_diffusion, network=parts.velocity, schedule=schedule, steps=5),
        latent_shape=tuple(parts.description["latent_shape"]),
        samples=2,
        temperature=1.0,
    )
    assert heads.shape == (2, len(SUPPORT), small.WAY, small.WIDTH + 1) and float(nfe) == 5
    assert np.isfinite(heads).all() and not np.allclose(heads[0], heads[1])


def test_a_flow_that_is_no_meta_model_draws_the_same_heads():
    parts, key = PARTS["token"], jax.random.key(4)
    known, chosen = parts.conditioner(SUPPORT), parts.description["sampling"]
    options = {"source": get_source("gaussian"), "solver": chosen["solver"]}
    found, nfe = sampling.draw_heads_with(
        key,
        parts.velocity_params,
        parts.latents,
        known,
        SUPPORT,
        sample=partial(sample_flow, network=parts.velocity, steps=chosen["steps"], **options),
        latent_shape=tuple(parts.description["latent_shape"]),
        samples=2,
        temperature=chosen["temperature"],
    )
    expected, count = draw(parts, key, SUPPORT, samples=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert float(nfe) == float(count) == 3


def test_regressed_heads_are_the_networks_at_zero_and_vary_with_the_noise_of_the_condition():
    parts, key = PARTS["token"], jax.random.key(4)
    known, shape = parts.conditioner(SUPPORT), tuple(parts.description["latent_shape"])
    arguments = (parts.velocity, parts.velocity_params, parts.latents)

    def regressed(known):
        return sampling.regress_heads(*arguments, known, SUPPORT, shape)

    zeros = jnp.zeros((len(SUPPORT), *shape))
    z = parts.velocity.apply(parts.velocity_params, zeros, jnp.zeros(()), known)
    expected = parts.latents.decode(z, sampling.context_of(SUPPORT))
    np.testing.assert_allclose(regressed(known), expected, atol=1e-5)
    noisy = sampling.regress_noisy_heads(*arguments, known, SUPPORT, shape, key, 0.4, samples=3)
    assert noisy.shape == (3, *expected.shape)
    seen = noisy_condition(jax.random.split(key, 3)[1], known, 0.4, small.SHOT)
    np.testing.assert_allclose(noisy[1], regressed(seen), atol=1e-4)
    still = sampling.regress_noisy_heads(*arguments, known, SUPPORT, shape, key, 0.0, samples=2)
    np.testing.assert_allclose(still, jnp.stack([expected] * 2), atol=1e-5)


def test_reconstructed_heads_were_encoded_and_decoded_on_their_own_base():
    latents, context = PARTS["token"].latents, sampling.context_of(SUPPORT)
    heads = jax.random.normal(jax.random.key(6), (6, small.WAY, small.WIDTH + 1))
    expected = latents.decode(latents.encode(heads, context), context)
    found = sampling.reconstruct_heads(latents, heads, SUPPORT)
    np.testing.assert_array_equal(found, expected)
