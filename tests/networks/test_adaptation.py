"""Parts of a generator that are adapted to other images, and what they leave alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.errors import UserError
from flown_jax.flow import get_source
from flown_jax.networks.adaptation import (
    DECODER,
    RESIDUAL,
    VELOCITY,
    Generator,
    adaptation_loss,
    adapted,
    adjoint_loss,
    generator_of,
    gradient_norms,
    parts_of,
    refine_loss,
    rewards,
)
from flown_jax.networks.space import OfSet
from tests.layers.helpers import quick_jit
from tests.networks import model, zoos

EVERY = (VELOCITY, RESIDUAL, DECODER)
OPTIONS = {"networks": 4, "gradient_from": 0.4}


def made(graph=""):
    parts = model.meta_model(graph).parts
    return Generator(
        parts.latents,
        parts.velocity_params,
        {"features": jnp.ones((1, zoos.CLASSES, model.WIDTH))},
        velocity=parts.velocity,
        context=OfSet("colour"),
        source=get_source("gaussian"),
        latent_shape=model.LATENT,
        steps=5,
    )


@pytest.fixture(scope="module")
def generator():
    return made()


@pytest.fixture(scope="module")
def batch():
    labels = np.random.default_rng(0).integers(0, zoos.CLASSES, 12)
    return {"images": zoos.images("colour", 12), "labels": labels}


def draws(generator, count=5, seed=3):
    return quick_jit(lambda g, k: g.draw(k, count))(generator, jax.random.key(seed))


def gradient(generator, batch, names, **options):
    def loss(trained):
        return adaptation_loss(
            trained, jax.random.key(0), batch, generator, **{**OPTIONS, **options}
        )

    return quick_jit(jax.grad(loss, has_aux=True))(parts_of(generator, names))


def descend(loss, generator, batch, name, keys, **options):
    """A part after 60 steps with so many keys in turn, and the cross-entropy of each step."""
    optimizer, trained = optax.adam(0.01), parts_of(generator, [name])
    state = optimizer.init(trained)

    @quick_jit
    def step(trained, state, key):
        (_, metrics), found = jax.value_and_grad(loss, has_aux=True)(
            trained, key, batch, generator, **options
        )
        updates, state = optimizer.update(found, state)
        return optax.apply_updates(trained, updates), state, metrics["task"]

    tasks = []
    for number in range(60):
        trained, state, task = step(trained, state, jax.random.key(number % keys))
        tasks.append(float(task))
    return trained, tasks


def test_unchanged_parts_change_nothing(generator):
    again = adapted(generator, parts_of(generator, EVERY))
    np.testing.assert_allclose(draws(again), draws(generator), rtol=1e-6)
    assert draws(generator).shape == (5, zoos.SPECS["colour"].size)
    # A sample does not depend on how many are drawn.
    np.testing.assert_allclose(draws(generator, 2), draws(generator)[:2], rtol=1e-5)


def test_the_generator_itself_stays_as_it_is(generator):
    before = draws(generator)
    moved = jax.tree.map(lambda a: a + 0.1, parts_of(generator, EVERY))
    assert np.abs(draws(adapted(generator, moved)) - before).max() > 0.01
    np.testing.assert_array_equal(draws(generator), before)


@pytest.mark.parametrize("graph", ["", "transformer"])
def test_the_decoder_is_what_decoding_uses_and_no_more(graph):
    generator = made(graph)
    x1 = jax.random.normal(jax.random.key(0), (2, *generator.latents.target.shape))

    def means(g):
        return g.latents.codec.apply(g.latents.variables, x1, method="encode").mode()

    part = parts_of(generator, [DECODER])
    moved = adapted(generator, jax.tree.map(lambda a: a + 0.1, part))
    np.testing.assert_array_equal(means(moved), means(generator))
    found, _ = gradient(
        generator, {"images": zoos.images("colour"), "labels": np.zeros(12, int)}, [DECODER]
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))


def test_a_residual_moves_all_networks_alike(generator):
    target = generator.latents.target
    vector = jax.random.normal(jax.random.key(1), target.shape)
    before, after = draws(generator), draws(adapted(generator, {RESIDUAL: vector}))
    step = target.joint.extract("colour", vector * target.scale)
    np.testing.assert_allclose(after - before, np.tile(step, (5, 1)), atol=1e-5)
    assert parts_of(adapted(generator, {RESIDUAL: vector}), [RESIDUAL])[RESIDUAL] is vector


def test_no_gradient_enters_the_solver_where_the_velocity_is_fixed(generator, batch):
    def of(params, trained):
        given = generator.replace(params=params)
        return adaptation_loss(trained, jax.random.key(0), batch, given, **OPTIONS)[0]

    for names in ([RESIDUAL], [DECODER], [RESIDUAL, DECODER]):
        found = quick_jit(jax.grad(of))(generator.params, parts_of(generator, names))
        assert all(not leaf.any() for leaf in jax.tree.leaves(found))
    found, _ = gradient(generator, batch, [VELOCITY])
    assert any(leaf.any() for leaf in jax.tree.leaves(found))


def test_the_cut_changes_gradients_and_no_value(generator, batch):
    found = {t: gradient(generator, batch, [VELOCITY], gradient_from=t) for t in (0.0, 0.4, 0.8)}
    tasks = [float(metrics["task"]) for _, metrics in found.values()]
    np.testing.assert_allclose(tasks, tasks[0], rtol=1e-6)
    flat = {t: np.asarray(jax.flatten_util.ravel_pytree(g)[0]) for t, (g, _) in found.items()}
    cosine = [
        flat[0.0] @ flat[t] / np.linalg.norm(flat[0.0]) / np.linalg.norm(flat[t])
        for t in (0.4, 0.8)
    ]
    assert 1 > cosine[0] > cosine[1] > 0.2


def test_rewards_are_the_negative_loss_of_each(generator, batch):
    z = generator.flow(generator.start(jax.random.key(0), 4))
    found = rewards(generator, z, batch)
    loss, metrics = adaptation_loss(
        {}, jax.random.key(0), batch, generator, **OPTIONS, diversity_weight=0.0
    )
    assert found.shape == (4,) and float(-found.mean()) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["task"]) == float(loss) and float(metrics["diversity"]) > 0


@pytest.mark.parametrize("name", EVERY)
def test_training_a_part_lowers_the_loss(generator, batch, name):
    _, tasks = descend(adaptation_loss, generator, batch, name, 1, **OPTIONS)
    assert tasks[-1] < tasks[0] - 0.005


def test_the_diversity_term_keeps_networks_apart(generator, batch):
    far, _ = gradient(generator, batch, [DECODER], diversity_weight=0.0)
    wide, _ = gradient(generator, batch, [DECODER], diversity_weight=1.0, diversity_target=1e-6)
    apart, _ = gradient(generator, batch, [DECODER], diversity_weight=1.0, diversity_target=50.0)
    flat = [np.asarray(jax.flatten_util.ravel_pytree(g)[0]) for g in (far, wide, apart)]
    np.testing.assert_allclose(flat[0], flat[1], atol=1e-6)
    start, back = jax.flatten_util.ravel_pytree(parts_of(generator, [DECODER]))
    moved = adapted(generator, back(start - 1e-3 * (flat[2] - flat[0])))
    spread = [
        np.linalg.norm(x[:, None] - x[None], axis=-1).mean()
        for x in (draws(generator), draws(moved))
    ]
    assert spread[1] > spread[0]


def test_adjoint_matching_moves_the_velocity_towards_the_reward(generator, batch):
    options = {"networks": 8, "steps": 8, "strength": 20.0, "last": 2, "others": 2}
    trained, tasks = descend(adjoint_loss, generator, batch, VELOCITY, 6, **options)
    assert np.mean(tasks[-6:]) < np.mean(tasks[:6])
    with pytest.raises(UserError, match="trains the velocity, and nothing beside it"):
        adjoint_loss(parts_of(generator, EVERY), jax.random.key(0), batch, generator, networks=2)
    other = generator.replace(source=get_source("kaiming_uniform"))
    with pytest.raises(UserError, match="needs a Gaussian source.* is kaiming_uniform"):
        adjoint_loss(trained, jax.random.key(0), batch, other, networks=2)


def test_gradients_by_time_end_at_that_of_the_decoder(generator, batch):
    generator = generator.replace(steps=2)
    found = quick_jit(gradient_norms, static_argnums=3)(generator, jax.random.key(0), batch, 4)
    assert found.shape == (3,) and np.all(found > 0)
    z = generator.flow(generator.start(jax.random.key(0), 4))
    last = jax.grad(lambda z: -rewards(generator, z, batch).mean())(z)
    assert float(found[-1]) == pytest.approx(float(jnp.linalg.norm(last)), rel=1e-4)


def test_each_latent_is_refined_by_itself(generator, batch):
    z = jax.random.normal(jax.random.key(5), (3, *model.LATENT))

    @quick_jit
    def gradient_of(z):
        key = jax.random.key(0)
        return jax.grad(lambda z: refine_loss({"latent": z}, key, batch, generator)[0])(z)

    every = gradient_of(z)
    other = gradient_of(z.at[0].set(0.5))
    np.testing.assert_allclose(every[1:], other[1:], atol=1e-6)
    np.testing.assert_allclose(gradient_of(z[:1]), every[:1], atol=1e-6)


def test_the_generator_of_a_meta_model_draws_its_networks():
    made = model.meta_model()
    condition = {"features": jnp.ones((1, zoos.CLASSES, model.WIDTH))}
    found = generator_of(made.parts, condition, OfSet("colour"))
    assert (found.solver, found.steps) == ("euler", 3)
    key = jax.random.key(4)
    weights, nfe = made.parts.sample(key, condition, OfSet("colour"), samples=3)
    assert weights[:, 0].shape == found.draw(key, 3).shape and nfe == 3
    again = generator_of(made.parts, condition, OfSet("grey"), solver="heun", steps=2)
    assert (again.solver, again.steps, again.context.name) == ("heun", 2, "grey")


def test_images_that_the_networks_do_not_take_are_refused(generator, batch):
    for images in (batch["images"][:, :6], batch["images"][..., :1]):
        with pytest.raises(UserError, match=r"networks take images \(8, 8, 3\), preprocessed, not"):
            gradient(generator, {**batch, "images": images}, [VELOCITY])


@pytest.mark.parametrize("names", [(), ("encoder",), (RESIDUAL, RESIDUAL)])
def test_unknown_parts_are_refused(generator, names):
    with pytest.raises(UserError, match="one or more of velocity, residual, decoder, not "):
        parts_of(generator, names)


def test_parts_of_another_generator_are_refused(generator):
    for other in ({RESIDUAL: jnp.zeros(3)}, {DECODER: {"decoder": jnp.zeros(3)}}):
        with pytest.raises(UserError, match="not of this generator: names or shapes differ"):
            adapted(generator, other)
