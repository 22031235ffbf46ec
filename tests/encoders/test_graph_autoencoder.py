"""The autoencoder whose encoder reads graphs: what goes in, what comes out, who is refused."""

from __future__ import annotations

import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from flown_jax.encoders import graph_autoencoder
from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.codecs import make_codec
from flown_jax.encoders.graph_autoencoder import GraphAutoencoder
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.errors import UserError
from flown_jax.meta_model import losses, training
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.weights.graphs import topology
from flown_jax.weights.spec import Entry, WeightSpec
from tests.encoders.graphs import SIZES, assert_close, assert_finite, initial, networks
from tests.encoders.test_codecs import SIZES as KL
from tests.layers.helpers import quick_jit
from tests.weights import base_models

SPEC = base_models.spec("mlp")
TOP = topology(SPEC)
LATENT = (2, 3, 2)
GRAPH = tuple(SIZES.items())


@flax.struct.dataclass
class Space:
    """Vectors standardised entry by entry."""

    affine: Any

    @property
    def shape(self):
        return self.affine[0].shape

    def normalise(self, w, _):
        return (w - self.affine[0]) / self.affine[1]


def made(graph=GRAPH, spec=SPEC):
    return GraphAutoencoder(spec, MLPVAE(spec.size, LATENT, 4), graph)


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global CODEC, W, MEAN, SCALE, X, START, VARIABLES, AFFINE, START_OF_W
    CODEC = made()
    W = networks(TOP, 5) * np.linspace(0.1, 2, TOP.size, dtype=np.float32) + 1
    MEAN, SCALE = W.mean(0), W.std(0)
    X = (W - MEAN) / SCALE
    START = initial(CODEC, X)
    VARIABLES = CODEC.fit(START, X, (MEAN, SCALE))
    AFFINE = {"mean": MEAN, "scale": SCALE}
    START_OF_W = {**START, "constants": {**START["constants"], **AFFINE}}


def test_graphs_of_weights_are_their_standardised_vectors():
    assert CODEC.latent_shape == LATENT
    graphs = jraph.batch([TOP.graph(w) for w in W])

    encode = quick_jit(lambda variables, x: CODEC.apply(variables, x, method="encode"))
    found, expected = encode(START_OF_W, graphs), encode(START_OF_W, X)
    assert expected.mean.shape == (5, *LATENT)
    assert_close(found, expected, 1e-5)
    # The whitening's gain, of five networks, is on rounding errors, too.
    assert_close(encode(VARIABLES, graphs), encode(VARIABLES, X), 2e-3)


def test_the_second_fit_is_the_first():
    again = CODEC.fit(VARIABLES, X, (MEAN, SCALE))
    jax.tree.map(np.testing.assert_array_equal, again, VARIABLES)
    np.testing.assert_array_equal(again["constants"]["mean"], MEAN)
    jax.tree.map(np.testing.assert_array_equal, again["params"], START["params"])


def test_moments_come_channel_by_channel_means_first(monkeypatch):
    monkeypatch.setattr(
        "flown_jax.encoders.graph_encoder.GraphEncoder.__call__",
        lambda self, x: jnp.tile(jnp.arange(24.0) / 10, (len(x), 1)),
    )
    posterior = CODEC.apply(VARIABLES, X[:1], method="encode")
    expected = np.arange(24.0).reshape(4, 2, 3) / 10
    np.testing.assert_allclose(posterior.mean[0], expected[:2].transpose(1, 2, 0), rtol=1e-6)
    slowly = graph_autoencoder._PACE * expected[2:]
    np.testing.assert_allclose(posterior.logvar[0], slowly.transpose(1, 2, 0), rtol=1e-6)


def test_extremes_have_finite_latents_and_slopes():
    """Zeros, a million, and what is fitted to equal networks or to one."""

    @quick_jit
    def slopes(variables, w):
        def loss(params, w):
            posterior = CODEC.apply({**variables, "params": params}, w, method="encode")
            return (posterior.mean**2 + posterior.logvar**2).sum()

        return jax.value_and_grad(loss, (0, 1))(variables["params"], w)

    odd = np.stack([np.zeros_like(X[0]), 1e6 * X[0], np.ones_like(X[0])])
    for zoo in (X[:1], np.tile(X[:1], (4, 1)), np.zeros_like(X[:2]), 1e6 * X):
        assert_finite(slopes(CODEC.fit(START, zoo), odd))


def test_with_the_papers_decoder():
    decoder = AutoencoderKL(in_dim=SPEC.size, **KL["autoencoder_kl"])
    codec = GraphAutoencoder(SPEC, decoder, GRAPH)
    shapes = jax.eval_shape(codec.init, jax.random.key(0), X)
    assert set(shapes["params"]["decoder"]) == {"decoder", "post_quant_conv", "fc_out"}
    out = jax.eval_shape(codec.apply, shapes, X)
    assert out.shape == X.shape


def refused(codec, x, message):
    with pytest.raises(UserError, match=message) as found:
        jax.eval_shape(codec.init, jax.random.key(0), x)
    assert re.fullmatch(r"[^\n]*\.", str(found.value))


def test_refusals():
    refused(made((*GRAPH, ("nodes", 3))), X, "^a graph encoder has no field 'nodes'; it has activ")
    refused(CODEC, X[:, 1:], rf"the graph encoder takes weight vectors \(B, {SPEC.size}\), got")
    entries = (Entry("a.weight", "params/a/kernel", (3, 3)),)
    part = WeightSpec(entries, model="MLP", partial=True)
    message = r"^the vectors are a part of a MLP \(a.weight to a.weight\): a graph encoder reads wh"
    refused(made(spec=part), np.zeros((1, 9), np.float32), message)
    other = topology(base_models.spec("cnn"))
    with pytest.raises(UserError, match="^the graphs have 1 features a node and 9 an edge, and"):
        CODEC.apply(VARIABLES, other.graph(networks(other, 1)[0]), method="encode")


def test_it_learns_and_what_is_fixed_stays(tmp_path):
    sizes = {"latent_shape": LATENT, "hidden_dim": 16}
    codec = make_codec("mlp", (SPEC.size,), encoder="graph", graph=SIZES, spec=SPEC, **sizes)
    space = Space((MEAN, SCALE))
    options = {"reconstruction": "mse", "kl_weight": 1e-3, "sigma_in": 0.0, "sigma_lat": 0.0}
    options["task_weight"] = 0.0
    batch = {"weights": W, "context": np.zeros(5)}
    records = Records(tmp_path)
    context = StageContext("stage", tmp_path / "progress", records)
    recipe = Recipe(steps=100, batch=5, learning_rate=0.002, clip=1.0)
    trained = training.train_codec(
        context, codec, space, lambda step: batch, recipe, seed=0, **options
    )
    records.close()
    start = jax.jit(codec.init)(jax.random.key(0), jnp.zeros((1, SPEC.size)))
    start = codec.fit(start, training.first_weights(space, lambda step: batch), space.affine)
    jax.tree.map(np.testing.assert_array_equal, trained["constants"], start["constants"])

    @quick_jit
    def metrics(variables):
        return losses.codec_loss(codec, variables, jax.random.key(1), batch, space, **options)[1]

    before, after = (metrics(v)["reconstruction"] for v in (start, trained))
    assert after < 0.7 * before
