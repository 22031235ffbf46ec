"""Drawing heads: what they depend on, and what they must not depend on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.few_shot.generator import Conditioner, sample_diffusion
from flown_jax.few_shot.parts import Parts, build
from flown_jax.few_shot.selection import choose_temperature
from flown_jax.flow import diffusion
from tests.few_shot import small
from tests.layers.helpers import quick_jit

PARTS = {form: small.parts(form) for form in small.CODECS}
SUPPORT = jnp.asarray(small.table().support())
draw = quick_jit(Parts.sample, static_argnames=("samples", "solver", "steps"))


def _base(parts, support, shot=small.SHOT):
    return parts.latents.space.base(support.mean(2), shot)


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
    key, one = jax.random.key(0), SUPPORT.mean(2, keepdims=True)
    given, _ = draw(parts, key, SUPPORT, samples=2)
    condition = parts.conditioner(SUPPORT)
    told, _ = draw(parts, key, one, samples=2, condition=condition, shot=small.SHOT)
    np.testing.assert_allclose(told, given, atol=1e-5)
    other, _ = draw(parts, key, one, samples=2, condition=condition, shot=1)
    assert not np.allclose(other, given, atol=1e-3)


def test_what_is_decoded_is_a_correction_to_the_base_head():
    latents = PARTS["token"].latents
    z = jax.random.normal(jax.random.key(2), (6, small.WAY, 3))
    base = _base(PARTS["token"], SUPPORT)
    zero = jnp.zeros_like(base)
    np.testing.assert_allclose(latents.decode(z, base), base + latents.decode(z, zero), atol=1e-5)
    # Of heads, only what they add to it is coded.
    np.testing.assert_allclose(latents.encode(base, base), latents.encode(zero, zero), atol=1e-5)


def test_the_entry_shots_is_the_logarithm_of_the_images_a_class():
    conditioner = Conditioner(None, None, None, ("shots",))
    for shot, value in ((1, 0.0), (2, 1.0), (4, 2.0), (5, np.log2(5))):
        (name, entry), *others = conditioner(jnp.ones((3, 4, shot, 7))).items()
        assert name == "shots" and not others and entry.shape == (3, 4, 1)
        np.testing.assert_allclose(entry, value, rtol=1e-6)
    labels = jnp.asarray([0, 1, 1, 2, 2, 2, 2])
    ragged = conditioner.of_images(jnp.ones((7, 5)), labels, 3)["shots"]
    np.testing.assert_allclose(ragged, [[[0.0], [1.0], [2.0]]], atol=1e-6)


@pytest.mark.parametrize(
    "entries", [("features",), ("caml",), ("caml", "features"), ("features", "shots")]
)
def test_the_condition_is_bitwise_independent_of_the_query_images(entries):
    conditioner = small.parts(entries=entries).conditioner
    table = small.table()
    condition = conditioner(table.support())
    assert set(condition) == set(entries)
    # Another table with the same support and other queries.
    other = dataclasses.replace(
        table, episodes=table.episodes.replace(query=table.episodes.query[..., ::-1])
    )
    again = conditioner(other.support())
    for name in entries:
        np.testing.assert_array_equal(condition[name], again[name])


def test_one_task_of_unequal_classes_has_the_condition_of_its_means():
    conditioner = small.parts(entries=("caml", "features", "shots")).conditioner
    support = SUPPORT[:1]
    flat = support[0].reshape(-1, small.WIDTH)
    labels = jnp.repeat(jnp.arange(small.WAY), small.SHOT)
    whole = quick_jit(Conditioner.__call__)(conditioner, support)
    ragged = conditioner.of_images(flat, labels, small.WAY)
    assert set(ragged) == set(whole) == {"caml", "features", "shots"}
    for name in whole:
        np.testing.assert_allclose(ragged[name], whole[name], atol=1e-5)
    fewer = conditioner.of_images(flat[1:], labels[1:], small.WAY)
    np.testing.assert_allclose(fewer["features"][0, 0], flat[1], atol=1e-6)


def test_the_diffusion_twin_draws_heads_with_its_own_count():
    parts = PARTS["token"]
    heads, nfe = sample_diffusion(
        jax.random.key(0),
        parts.velocity,
        parts.velocity_params,
        parts.latents,
        parts.conditioner(SUPPORT),
        _base(parts, SUPPORT),
        schedule=diffusion.iddpm_linear_schedule(50),
        latent_shape=parts.latent_shape,
        samples=2,
        steps=5,
    )
    assert heads.shape == (2, len(SUPPORT), small.WAY, small.WIDTH + 1) and float(nfe) == 5
    assert np.isfinite(heads).all()


def test_a_model_is_its_description_and_its_arrays():
    about = small.description(entries=("caml", "features"))
    arrays = small.arrays(about)
    first, again = build(about, arrays), build(about, arrays)
    assert first.description == about
    one, _ = draw(first, jax.random.key(0), SUPPORT, samples=2)
    two, _ = draw(again, jax.random.key(0), SUPPORT, samples=2)
    np.testing.assert_array_equal(one, two)


def test_the_chosen_temperature_has_the_least_nll_on_the_given_tasks():
    found = choose_temperature(
        PARTS["token"], small.table(8), jax.random.key(0), grid=(0.1, 1.0, 3.0), samples=4
    )
    assert found["temperature"] == found["grid"][int(np.argmin(found["nll"]))]
    assert len(found["accuracy"]) == 3
