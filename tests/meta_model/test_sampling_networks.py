"""Drawing networks, a condition each: what samples depend on, and what they must not depend on."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders import pca
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.flow import diffusion
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.latents import LatentSpace, Standardiser
from flown_jax.meta_model.sampling import each_row, row_by_row, sample_diffusion, sample_flow
from flown_jax.networks.space import NetworkSpace, OfSet
from tests.layers.helpers import quick_jit, random_variables
from tests.networks import zoos

WEIGHTS = {name: zoos.weights(name) for name in zoos.SPECS}
SPACE = NetworkSpace.fit(zoos.JOINT, WEIGHTS)
STATISTICS = Standardiser(jnp.asarray(0.3), jnp.asarray(2.0))
SHAPE = (2, 3)
CONDITION = {"a": jnp.arange(5.0)[:, None, None] * jnp.ones((5, 2, 3))}


def test_latents_and_networks_are_each_other_s_inverses():
    latents = LatentSpace(SPACE, {}, STATISTICS, zoos.Identity())
    for name, w in WEIGHTS.items():
        z, x1 = latents.encode(w, OfSet(name)), SPACE.normalise(w, OfSet(name))
        np.testing.assert_allclose(z, (x1 - 0.3) / 2, atol=1e-5)
        np.testing.assert_allclose(latents.targets(z), x1, atol=1e-5)
        np.testing.assert_allclose(latents.decode(z, OfSet(name)), w, atol=1e-5)


def test_principal_components_can_stand_in_for_a_codec():
    # Ten deviations from the mean of twelve vectors are not all, so that these are near alone.
    x = jnp.concatenate([SPACE.normalise(w, OfSet(name)) for name, w in WEIGHTS.items()])
    components = pca.fit(np.asarray(x), (3, 4), pad=True)
    latents = LatentSpace(SPACE, components, STATISTICS, pca.PCAModule())
    for name, w in WEIGHTS.items():
        z = latents.encode(w, OfSet(name))
        assert z.shape == (6, 3, 4)
        np.testing.assert_allclose(latents.decode(z, OfSet(name)), w, atol=1e-3)


def test_one_vector_is_read_for_either_set():
    codec = MLPVAE(in_dim=zoos.JOINT.size, latent_shape=(2, 2, 2), hidden_dim=8)
    variables = random_variables(codec, jnp.zeros((1, zoos.JOINT.size)))
    latents = LatentSpace(SPACE, variables, STATISTICS, codec)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 2)), jnp.float32)
    vectors = quick_jit(LatentSpace.targets)(latents, z)
    decoded = codec.apply(variables, 0.3 + 2 * z, method="decode")
    np.testing.assert_allclose(vectors, decoded, atol=1e-5)
    for name in zoos.SPECS:
        expected = SPACE.restore(vectors, OfSet(name))
        np.testing.assert_allclose(latents.decode(z, OfSet(name)), expected, atol=1e-5)


class Drift:
    """A velocity or noise: the condition's mean plus some share of x."""

    def apply(self, share, x, t, condition):
        return condition["a"].mean((1, 2))[:, None, None] + share * x


@partial(quick_jit, static_argnames=("source", "solver"))
def draw_flow(key, share, condition, temperature, x0, source, solver):
    rest = {"source": each_row(source), "latent_shape": SHAPE, "solver": solver, "steps": 4}
    return sample_flow(key, Drift(), share, condition, temperature=temperature, x0=x0, **rest)


def flow(
    condition=CONDITION,
    key=0,
    share=0.5,
    temperature=1.0,
    x0=None,
    source="gaussian",
    solver="euler",
):
    source, key = get_source(source), jax.random.key(key)
    z, evaluations = draw_flow(key, share, condition, temperature, x0, source, solver)
    return np.asarray(z), float(evaluations)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    many, _ = flow()
    assert many.shape == (5, *SHAPE)
    few, _ = flow({"a": CONDITION["a"][:2]})
    np.testing.assert_allclose(few, many[:2], atol=1e-6)
    other, _ = flow(key=1)
    assert np.abs(other - many).min() > 1e-4
    # With one condition they still are different ones.
    same, _ = flow({"a": jnp.zeros((5, 2, 3))})
    assert len(np.unique(same[:, 0, 0])) == 5


def test_a_sample_starts_at_the_source_and_is_moved_by_its_condition():
    start, _ = flow(share=0.0, condition={"a": jnp.zeros((5, 2, 3))})
    moved, _ = flow(share=0.0)
    shift = np.arange(5.0)[:, None, None] * np.ones((5, *SHAPE))
    np.testing.assert_allclose(moved - start, shift, atol=1e-5)
    cold, _ = flow(share=0.0, temperature=0.0)
    np.testing.assert_allclose(cold, shift, atol=1e-5)
    half, _ = flow(share=0.0, temperature=0.5)
    np.testing.assert_allclose(half - shift, 0.5 * start, atol=1e-5)
    # The source's scale is that of one latent, however many are drawn.
    kaiming, _ = flow(share=0.0, source="kaiming_normal")
    np.testing.assert_allclose(kaiming - shift, start * np.sqrt(2 / 6), atol=1e-5)


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 4), ("heun", 8)])
def test_starts_can_be_given(solver, evaluations):
    x0 = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    found, count = flow(x0=jnp.asarray(x0), key=7, solver=solver)
    assert count == evaluations
    rate = 1 + 0.5 / 4 if solver == "euler" else 1 + 0.5 / 4 + (0.5 / 4) ** 2 / 2
    c = np.arange(5.0)[:, None, None]
    # x' = c + x / 2 moves x + 2c by a factor a step.
    np.testing.assert_allclose(found + 2 * c, (x0 + 2 * c) * rate**4, rtol=1e-5)


def test_a_ddpm_draws_one_latent_for_each_condition():
    schedule = diffusion.linear_schedule(50, 1e-4, 2e-2)
    settings = {"schedule": schedule, "latent_shape": SHAPE, "steps": 5}

    @quick_jit
    def compiled(key, condition):
        def one(key, row):
            return sample_diffusion(key, Drift(), 0.1, row, **settings)

        return row_by_row(one, key, condition)

    def draw(condition, key=0):
        found = compiled(jax.random.key(key), condition)
        return np.asarray(found[0]), float(found[1].mean())

    many, evaluations = draw(CONDITION)
    assert many.shape == (5, *SHAPE) and evaluations == 5
    few, _ = draw({"a": CONDITION["a"][:2]})
    np.testing.assert_allclose(few, many[:2], atol=1e-5)
    np.testing.assert_array_equal(draw(CONDITION)[0], many)
    assert np.abs(draw(CONDITION, key=1)[0] - many).min() > 1e-4
    changed, _ = draw({"a": CONDITION["a"].at[3].add(1.0)})
    same = np.array([0, 1, 2, 4])
    np.testing.assert_array_equal(changed[same], many[same])
    assert np.abs(changed[3] - many[3]).min() > 1e-3
