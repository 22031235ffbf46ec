"""Losses of whole networks of two data sets: closed forms, and the terms that must be absent."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.encoders.losses import vae_loss
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.flow import diffusion, matching, paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.mixing import Mixing
from flown_jax.networks.space import NetworkSpace, OfSet
from tests.layers.helpers import quick_jit, random_variables
from tests.networks import zoos

KEY = jax.random.key(0)
WEIGHTS = {name: zoos.weights(name, 4) for name in zoos.SPECS}
SPACE = NetworkSpace.fit(zoos.JOINT, WEIGHTS)
IMAGES = {name: zoos.images(name) for name in zoos.SPECS}
LABELS = {name: np.arange(12) % zoos.CLASSES for name in zoos.SPECS}
BATCH = {
    "parts": {
        name: {"weights": w, "context": OfSet(name), "images": IMAGES[name], "labels": LABELS[name]}
        for name, w in WEIGHTS.items()
    }
}
CODEC = MLPVAE(in_dim=zoos.JOINT.size, latent_shape=(2, 2, 2), hidden_dim=8)
VARIABLES = random_variables(CODEC, jnp.zeros((1, zoos.JOINT.size)))
OPTIONS = {
    "reconstruction": "mse",
    "weights_weight": 1.0,
    "kl_weight": 0.01,
    "sigma_in": 0.1,
    "sigma_lat": 0.5,
    "task_weight": 0.0,
    "mixes": 3,
    "members": 2,
}
# All members in equal shares and no noise: every mix is the mean.
MEANS = {"members": 4, "concentration": 1e6, "sigma_lat": 0.0, "sigma_in": 0.0, "mixes": 2}


MIXING = {field.name for field in dataclasses.fields(Mixing)}
STRUCTURE = {"reconstruction", "task_weight", *MIXING} - {"concentration", "diversity_target"}


@functools.cache
def _compiled(codec, structure, gradient):
    """One program for all values of the options that do not change what is computed."""

    def loss(variables, key, batch, space, values):
        options = dict(structure) | values
        mixing = Mixing(**{k: options.pop(k) for k in MIXING if k in options})
        return losses.codec_loss(codec, variables, key, batch, space, mixing=mixing, **options)

    return quick_jit(jax.value_and_grad(loss, has_aux=True) if gradient else loss)


def codec_loss(codec=CODEC, variables=VARIABLES, gradient=False, **options):
    """Loss and metrics; with `gradient` the loss and its gradient by the variables."""
    options = OPTIONS | options
    structure = tuple(sorted((k, v) for k, v in options.items() if k in STRUCTURE))
    values = {k: v for k, v in options.items() if k not in STRUCTURE}
    found = _compiled(codec, structure, gradient)(variables, KEY, BATCH, SPACE, values)
    if gradient:
        (value, _), slope = found
        return float(value), slope
    return float(found[0]), {k: float(v) for k, v in found[1].items()}


def test_the_task_loss_is_the_cross_entropy_of_every_network_and_image():
    part, spec = BATCH["parts"]["colour"], zoos.SPECS["colour"]
    found = SPACE.task_loss(jnp.asarray(part["weights"]), part)
    scores = np.stack([spec.apply(w, part["images"]) for w in part["weights"]])
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = -log_probs[:, np.arange(12), part["labels"]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_without_a_task_it_is_the_loss_of_weights():
    value, metrics = codec_loss()
    key, _ = jax.random.split(KEY)
    x = jnp.concatenate([SPACE.normalise(WEIGHTS[name], OfSet(name)) for name in sorted(WEIGHTS)])

    @quick_jit
    def expected(variables, x):
        return vae_loss(
            lambda x: CODEC.apply(variables, x, method="encode"),
            lambda z: CODEC.apply(variables, z, method="decode"),
            key,
            x,
            reconstruction="mse",
            kl_weight=0.01,
            sigma_in=0.1,
            sigma_lat=0.5,
        )

    loss, aux = expected(VARIABLES, x)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    for name in ("reconstruction", "kl"):
        np.testing.assert_allclose(metrics[name], aux[name], rtol=1e-5)
    assert not {"task", "anchor", "shortfall"} & set(metrics)


def test_without_their_weight_reconstructions_give_no_gradient():
    none = {"weights_weight": 0.0, "kl_weight": 0.0, "gradient": True}
    value, slope = codec_loss(**none)
    assert value == 0 and all(not np.any(leaf) for leaf in jax.tree.leaves(slope))
    # With a task its gradient is what is left.
    _, task = codec_loss(**none, task_weight=0.7)
    _, both = codec_loss(**(none | {"weights_weight": 2.0}), task_weight=0.7)
    _, weights = codec_loss(**(none | {"weights_weight": 2.0}))
    assert optax.tree.norm(task) > 0.01 and optax.tree.norm(weights) > 0.01
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a + b, c, atol=1e-4), task, weights, both
    )


@functools.partial(quick_jit, static_argnums=0)
def of_the_mean(name, variables, space, batch):
    """Cross-entropy, and squared distance to its anchor, of the mean mix of a set."""
    part, spec = batch["parts"][name], zoos.SPECS[name]
    x, labels = space.normalise(part["weights"], part["context"]), part["labels"]
    mean = CODEC.apply(variables, x, method="encode").mode().mean(0)
    decoded = CODEC.apply(variables, mean[None], method="decode")[0]
    scores = spec.apply(space.restore(decoded, part["context"]), part["images"])
    entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
    return entropy, jnp.mean((decoded - x.mean(0)) ** 2)


def test_the_task_is_the_cross_entropy_of_decoded_mixes():
    value, metrics = codec_loss(
        weights_weight=0.0, kl_weight=0.0, task_weight=0.5, anchor=0.25, **MEANS
    )
    found = [of_the_mean(name, VARIABLES, SPACE, BATCH) for name in zoos.SPECS]
    for name, expected in zip(("task", "anchor"), np.mean(found, axis=0), strict=True):
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-3)
    np.testing.assert_allclose(value, 0.5 * metrics["task"] + 0.25 * metrics["anchor"], rtol=1e-5)


def test_scales_weigh_each_set_and_leave_the_metric():
    options = MEANS | {"weights_weight": 0.0, "kl_weight": 0.0, "task_weight": 0.5}
    scales = {"grey": 3.0, "colour": 0.5}
    value, metrics = codec_loss(**options, task_scales=scales)
    found = {name: float(of_the_mean(name, VARIABLES, SPACE, BATCH)[0]) for name in zoos.SPECS}
    weighted = np.mean([scales[name] * found[name] for name in found])
    np.testing.assert_allclose(value, 0.5 * weighted, rtol=1e-3)
    np.testing.assert_allclose(metrics["task"], np.mean(list(found.values())), rtol=1e-3)


def test_diversity_counts_below_the_target_alone():
    # Four members, drawn by chance; what changes nothing decodes them to mixes of the weights.
    options = MEANS | {"weights_weight": 0.0, "kl_weight": 0.0, "task_weight": 1.0}
    options |= {"codec": zoos.Identity(), "variables": {}, "diversity_weight": 2.0, "anchor": 1.0}
    value, metrics = codec_loss(**options | {"concentration": 1.0, "diversity_target": 1e-3})
    assert metrics["shortfall"] == 0 and metrics["anchor"] < 1e-8
    np.testing.assert_allclose(value, metrics["task"], rtol=1e-5)
    # Equal mixes are as short of it as can be.
    value, metrics = codec_loss(**options, diversity_target=0.7)
    np.testing.assert_allclose(metrics["shortfall"], 0.49, rtol=0.01)
    np.testing.assert_allclose(value, metrics["task"] + 2 * metrics["shortfall"], rtol=1e-5)


def test_what_leaves_the_ball_of_a_set_counts():
    options = MEANS | {"weights_weight": 0.0, "kl_weight": 0.0, "task_weight": 1.0}
    options |= {"codec": zoos.Identity(), "variables": {}, "ball_weight": 3.0}
    middles = {name: w.mean(0) for name, w in WEIGHTS.items()}
    value, metrics = codec_loss(**options, middles=middles)  # every mix is the mean
    assert metrics["outside"] < 1e-6
    # From another middle they are outside by what it is away.
    away = {name: m + 2.0 for name, m in middles.items()}
    value, metrics = codec_loss(**options, middles=away)
    expected = []
    for name in zoos.SPECS:
        of = OfSet(name)
        far = SPACE.normalise(away[name][None], of) - SPACE.normalise(middles[name][None], of)
        length = np.linalg.norm(far) / SPACE.unit(of)
        expected.append(max(0.0, float(length) - 1 / np.sqrt(2)) ** 2)
    assert min(expected) > 0.01
    np.testing.assert_allclose(metrics["outside"], np.mean(expected), rtol=1e-3)
    np.testing.assert_allclose(value, metrics["task"] + 3 * metrics["outside"], rtol=1e-4)
    with pytest.raises(ValueError, match="middles"):
        codec_loss(**options)


class Seen:
    """A network that gives x, and keeps the time and the condition that it is given."""

    def apply(self, params, x, t, condition):
        self.t, self.condition = t, condition
        return params * x


LATENT = jnp.asarray(np.random.default_rng(1).normal(size=(400, 3)), jnp.float32)
CONDITION = {"b": jnp.ones((400, 2, 5)), "a": jnp.zeros((400, 2, 3))}
FLOW_BATCH = {"latent": LATENT, "condition": CONDITION, "group": jnp.arange(400) % 2}


def test_the_flow_is_matched_within_groups():
    network = Seen()
    parts = {
        "path": paths.LinearPath(0.0),
        "coupling": get_coupling("exact_ot"),
        "source": get_source("gaussian"),
    }
    batch = jax.tree.map(lambda leaf: leaf[:16], FLOW_BATCH)
    found, metrics = losses.flow_loss(network, 0.5, KEY, batch, None, **parts)
    _, key = jax.random.split(KEY)
    expected, _ = matching.cfm_loss(
        lambda x, t, c: 0.5 * x,
        key,
        batch["latent"],
        batch["condition"],
        groups=batch["group"],
        **parts,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert metrics["cfm"] == found
    jax.tree.map(np.testing.assert_array_equal, network.condition, batch["condition"])


@pytest.mark.parametrize("kind", ["flow", "ddpm"])
def test_the_condition_is_noisy_where_it_is_asked_for(kind):
    network = Seen()
    if kind == "flow":
        coupling, source = get_coupling("independent"), get_source("gaussian")
        rest = {"path": paths.LinearPath(0.0), "coupling": coupling, "source": source}
        loss = losses.flow_loss
    else:
        rest = {"schedule": diffusion.linear_schedule(100, 1e-4, 2e-2)}
        loss = losses.diffusion_loss
    loss(network, 0.5, KEY, FLOW_BATCH, None, condition_noise=0.2, **rest)
    noise = {k: np.asarray(network.condition[k] - CONDITION[k]) for k in CONDITION}
    for value in noise.values():
        np.testing.assert_allclose(value.std(), 0.2, rtol=0.05)
    assert abs(np.corrcoef(noise["a"][..., 0].ravel(), noise["b"][..., 0].ravel())[0, 1]) < 0.2


def test_the_ddpm_predicts_noise():
    network, schedule = Seen(), diffusion.linear_schedule(100, 1e-4, 2e-2)
    found, metrics = losses.diffusion_loss(network, 0.0, KEY, FLOW_BATCH, None, schedule=schedule)
    # Predicting nothing costs the variance of the noise.
    np.testing.assert_allclose(found, 1, rtol=0.1)
    assert metrics["eps"] == found
    assert network.t.shape == (400,) and network.t.min() >= 0 and network.t.max() < 1
    jax.tree.map(np.testing.assert_array_equal, network.condition, dict(CONDITION))
