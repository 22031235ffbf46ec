"""The prior of another data set: its networks as joint vectors, and who learns from the flow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.errors import UserError
from flown_jax.flow.couplings import independent
from flown_jax.flow.paths import LinearPath
from flown_jax.meta_model import losses
from flown_jax.meta_model.latents import LatentSpace, Standardiser
from flown_jax.meta_model.mixing import Mixing
from flown_jax.meta_model.training import split
from flown_jax.models.cnn import CNN
from flown_jax.networks import prior, prior_training
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.recipe import Recipe
from flown_jax.training.records import Records
from flown_jax.training.stages import StageContext
from flown_jax.velocity.make import make_velocity
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec
from tests.encoders.stand_in import GraphAutoencoder
from tests.layers.helpers import initial_variables, quick_jit

SIDE, LATENT, DRAWS = 8, (2, 2, 2), 1000


def spec_of(channels: int, classes: int = 3, width: int = 2) -> WeightSpec:
    module = CNN(channels=(width,), kernels=(3,), pools=(True,), hidden=(4,), num_classes=classes)
    images = jnp.zeros((1, SIDE, SIDE, channels))
    return WeightSpec.from_module(module, jax.eval_shape(module.init, jax.random.key(0), images))


@functools.cache
def joint() -> JointSpace:
    return JointSpace.of({"grey": spec_of(1), "colour": spec_of(3)})


@functools.cache
def space() -> NetworkSpace:
    random = np.random.default_rng(1)
    names = joint().names
    return NetworkSpace.fit(
        joint(), {n: random.normal(0, 0.2, (5, joint().spec(n).size)) for n in names}
    )


def networks(spec: WeightSpec, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 1, (count, spec.size)).astype(np.float32)


def body_and_head(spec: WeightSpec) -> tuple[list[str], list[str]]:
    return list(spec.names[:-2]), list(spec.names[-2:])


def source() -> prior.PriorSource:
    own = spec_of(3, classes=7)
    made = prior.Prior.of(joint(), own, networks(own))
    return prior.PriorSource(made, space(), Standardiser(jnp.zeros(LATENT), jnp.ones(LATENT)))


def codec() -> MLPVAE:
    return MLPVAE(in_dim=joint().size, latent_shape=LATENT, hidden_dim=8)


def test_without_noise_everything_but_the_head_is_that_of_a_network():
    own = spec_of(3, classes=7)
    weights = networks(own)
    found = prior.Prior.of(joint(), own, weights)
    vectors = np.asarray(prior.implant(jax.random.key(0), found, 0.0, DRAWS))
    body, _ = body_and_head(own)
    places = joint().slices
    of_vectors = np.concatenate([vectors[:, places[n]] for n in body], 1)
    of_networks = np.concatenate([weights[:, own.slices[n]] for n in body], 1)
    same = (of_vectors[:, None] == of_networks[None]).all(-1)
    np.testing.assert_array_equal(same.sum(1), 1)
    assert same.any(0).all(), "every network is drawn"


def test_the_head_has_the_mean_and_deviation_of_the_networks_own_head():
    own = spec_of(3, classes=7)
    weights = networks(own)[[0, 0, 0, 0]]
    found = prior.Prior.of(joint(), own, weights)
    vectors = np.asarray(prior.implant(jax.random.key(1), found, 0.0, DRAWS))
    for name in body_and_head(own)[1]:
        drawn, values = vectors[:, joint().slices[name]], weights[0, own.slices[name]]
        assert drawn.shape[1] < len(values), "three classes here, seven there"
        np.testing.assert_allclose(drawn.mean(0), values.mean(), atol=5 * values.std() / DRAWS**0.5)
        np.testing.assert_allclose(drawn.std(0), values.std(), rtol=0.1)
    assert np.ptp(vectors[:, joint().slices[own.names[-1]]], axis=1).min() > 0


def test_noise_is_on_everything_and_a_vector_depends_on_its_number_alone():
    own = spec_of(3)
    found = prior.Prior.of(joint(), own, networks(own)[[0, 0, 0, 0]])
    key = jax.random.key(2)
    clean, noisy = (np.asarray(prior.implant(key, found, s, DRAWS)) for s in (0.0, 0.7))
    np.testing.assert_allclose((noisy - clean).std(0), 0.7, rtol=0.15)
    np.testing.assert_array_equal(prior.implant(key, found, 0.7, 3), noisy[:3])


def test_channels_that_are_missing_are_zeros_and_those_too_many_are_left_out():
    grey, colour = spec_of(1), spec_of(3)
    weights = networks(grey)
    found = prior.Prior.of(joint(), grey, weights).centre
    kept = np.asarray(joint().extract("grey", found))
    body = grey.slices[grey.names[-2]].start
    np.testing.assert_array_equal(kept[:, :body], weights[:, :body])
    first = colour.entries[0]
    kernel = np.asarray(found[:, joint().slices[first.name]]).reshape(-1, *first.shape)
    assert not kernel[:, :, 1:].any() and kernel[:, :, 0].all()

    alone = JointSpace.of({"grey": grey})
    weights = networks(colour)
    kernel = weights[:, colour.slices[first.name]].reshape(-1, *first.shape)
    cut = prior.Prior.of(alone, colour, weights).centre[:, alone.slices[first.name]]
    np.testing.assert_array_equal(cut, kernel[:, :, :1].reshape(len(weights), -1))


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (spec_of(3, width=5), r"module_list.0.weight \(5, 3, 3, 3\), those of the zoos \(2, 3"),
        (
            spec_of(3).subset(lambda name: name.endswith("weight")),
            "other tensors than those of the zoos",
        ),
    ],
)
def test_networks_of_another_form_are_refused(own, sentence):
    with pytest.raises(UserError, match=sentence):
        prior.Prior.of(joint(), own, networks(own))


def test_the_mean_square_is_that_of_many_vectors():
    made = source()
    x = made.vectors(jax.random.key(3), 0.5, DRAWS)
    np.testing.assert_allclose(jnp.mean(x**2), made.mean_square(0.5), rtol=0.03)


def test_the_encoders_part_encodes_and_has_no_decoder():
    module = codec()
    x = jnp.ones((2, joint().size))
    variables = initial_variables(module, x)
    part = prior.encoder_part(module, variables, joint().size)
    assert set(part["params"]) == {"encoder"}
    np.testing.assert_array_equal(
        module.apply(part, x, method="encode").mode(),
        module.apply(variables, x, method="encode").mode(),
    )


def flow_gradients(trained: bool, module=None):
    """Loss and gradients of velocity and, where it is trained, encoder."""
    module, velocity = (
        module or codec(),
        make_velocity("mlp", LATENT, hidden_dims=(8,), embedding_dim=4),
    )
    condition = {"features": jnp.ones((6, 3, 4))}
    params = initial_variables(velocity, jnp.zeros((6, *LATENT)), jnp.zeros(()), condition)
    variables = initial_variables(module, jnp.zeros((1, joint().size)))
    encoder = prior.encoder_part(module, variables, joint().size)
    x = np.random.default_rng(2).normal(size=(6, joint().size)).astype(np.float32)
    batch = {"latent": x, "condition": condition, "group": np.zeros(6, np.int32)}
    own, fixed = split(encoder) if trained else ({}, encoder)
    params = {"velocity": params, **({"encoder": own} if trained else {})}
    frozen = {"source": source(), "encoder": fixed}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch):
        return prior_training.prior_flow_loss(
            velocity,
            module,
            params,
            jax.random.key(4),
            batch,
            noise=1.0,
            path=LinearPath(0.0),
            coupling=independent,
            condition_noise=0.0,
        )

    return quick_jit(loss)(params, {**batch, "frozen": frozen})


def test_the_flow_trains_the_encoder_in_the_papers_form_only():
    def size(tree):
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))

    (paper, metrics), of_paper = flow_gradients(trained=True)
    (mended, _), of_mended = flow_gradients(trained=False)
    np.testing.assert_allclose(paper, mended, rtol=1e-5)
    assert size(of_paper["encoder"]) > 1e-4
    assert set(of_mended) == {"velocity"}
    assert size(of_mended["velocity"]) > 0
    # Both ends went through the same encoder: the prior's noise makes its latents wider.
    assert metrics["start_std"] > metrics["end_std"] > 0


def test_what_a_codec_has_fixed_is_not_trained_by_the_flow():
    module = GraphAutoencoder(joint().spec("colour"), codec())
    _, of_paper = flow_gradients(trained=True, module=module)
    assert jax.tree.map(jnp.shape, of_paper["encoder"]) == {
        "params": {"head": {"kernel": (16, 16), "bias": (16,)}}
    }


LOSS = {
    "reconstruction": "mse",
    "weights_weight": 1.0,
    "kl_weight": 0.0,
    "sigma_in": 0.0,
    "sigma_lat": 0.0,
    "task_weight": 0.0,
    "mixing": Mixing(mixes=1, members=2),
}


def test_the_mended_codec_loss_adds_the_reconstruction_of_the_prior():
    module, made = codec(), source()
    variables = initial_variables(module, jnp.zeros((1, joint().size)))
    random = np.random.default_rng(3)
    sizes = {n: joint().spec(n).size for n in joint().names}
    weights = {n: random.normal(size=(4, size)).astype(np.float32) for n, size in sizes.items()}
    parts = {n: {"weights": own, "context": OfSet(n)} for n, own in weights.items()}
    batch = {"parts": parts}
    key = jax.random.key(5)

    @quick_jit
    def both(variables, batch, made):
        mended = prior_training.mended_codec_loss(
            module, variables, key, batch, made, noise=0.5, count=8, weight=2.0, **LOSS
        )
        first = jax.random.split(key, 3)[0]
        return mended, losses.codec_loss(module, variables, first, batch, made.target, **LOSS)

    (value, metrics), (alone, _) = both(variables, batch, made)
    extra = metrics["prior_reconstruction"]
    np.testing.assert_allclose(value - alone, 2 * extra, rtol=1e-4)
    # A fresh codec gives about nothing back, which is one mean square.
    assert 0.7 < extra < 1.5


def test_a_recorded_run_has_the_loss_of_every_step_even_if_it_was_stopped(tmp_path):
    def loss(params, key, batch):
        return jnp.mean((params["w"] - batch["x"]) ** 2), {}

    def batch_at(i):
        if i == stop:
            raise KeyboardInterrupt
        return {"x": np.full((2, 1), i, np.float32)}

    def run(folder):
        context = StageContext("stage", tmp_path / folder, Records(tmp_path / folder))
        recipe = Recipe(6, 2, 0.1, save_every=2, log_every=2)
        return prior_training.train_recorded(
            context, "flow", {"w": jnp.zeros(1)}, loss, batch_at, recipe=recipe, seed=0
        )

    stop = -1
    _, whole = run("whole")
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    assert Checkpoints(tmp_path / "stopped" / "flow").latest() == 4
    stop = -1
    _, resumed = run("stopped")
    assert whole.shape == (6,) and whole[0] == 0 and whole[5] > whole[1] > 0
    np.testing.assert_array_equal(resumed, whole)


def test_curves_are_means_of_equally_many_steps():
    found = prior_training.curves({"a": np.arange(7.0), "b": np.ones(7)}, points=3)
    np.testing.assert_array_equal(found["steps"], [3, 6])
    np.testing.assert_array_equal(found["a"], [1, 4])
    np.testing.assert_array_equal(found["b"], [1, 1])


def test_facts_compare_the_two_forms():
    module, made = codec(), source()
    variables = initial_variables(module, jnp.zeros((1, joint().size)))
    before = LatentSpace(space(), variables, made.statistics, module)
    # A decoder that gives the mean alone leaves all of the spread out.
    silent = jax.tree.map(jnp.zeros_like, variables)
    mended = LatentSpace(space(), silent, Standardiser(jnp.zeros(LATENT), 2.0), module)
    weights = {n: networks(joint().spec(n)) for n in joint().names}
    encoder = prior.encoder_part(module, variables, joint().size)
    key = jax.random.key(6)
    found = prior_training.prior_facts(key, made, weights, encoder, before, mended, 1.0, count=50)
    start = made.latents(key, module, encoder, 1.0, 50)
    np.testing.assert_allclose(found["prior_std"], start.std(), rtol=1e-5)
    z = [before.encode(w, OfSet(n)) for n, w in weights.items()]
    np.testing.assert_allclose(found["targets_std"], jnp.concatenate(z).std(), rtol=1e-5)
    assert found["prior_std_mended"] == 0
    np.testing.assert_allclose(found["residual_mended"], 1, rtol=1e-5)
    assert found["residual"] != found["residual_mended"]
