"""Chunks of weight vectors: the same as each by itself, as good as whole vectors, small memory."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.encoders.chunks import ChunkedAutoencoder
from flown_jax.encoders.codecs import make_codec
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.errors import UserError
from tests.encoders.test_codecs import SIZES
from tests.parity.fixtures import ROOT

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("form", ["mlp", "autoencoder_kl"])
def test_every_chunk_is_coded_by_itself(form):
    codec = make_codec(form, (50,), chunk=20, **SIZES[form])
    alone = make_codec(form, (20,), **SIZES[form])
    w = jnp.asarray(RNG.normal(size=(2, 50)), jnp.float32)
    variables = jax.jit(codec.init)(jax.random.key(0), w)
    inner = {"params": variables["params"]["autoencoder"]}
    z = codec.apply(variables, w, method="encode")
    decoded = codec.apply(variables, z.mode(), method="decode")
    assert z.mean.shape == z.logvar.shape == (2, 4, 4, 3 * 2) and decoded.shape == w.shape
    filled = jnp.pad(w, ((0, 0), (0, 10)))
    for i in range(3):
        part = alone.apply(inner, filled[:, 20 * i : 20 * i + 20], method="encode")
        np.testing.assert_allclose(z.mean[..., 2 * i : 2 * i + 2], part.mean, atol=1e-5)
        again = alone.apply(inner, part.mode(), method="decode")
        own = decoded[:, 20 * i : 20 * i + 20]
        np.testing.assert_allclose(own, again[:, : own.shape[1]], atol=1e-5)


def test_some_chunks_at_a_time_are_the_same():
    codec = make_codec("mlp", (200,), chunk=10, **SIZES["mlp"])  # 20 of each vector
    w = jnp.asarray(RNG.normal(size=(3, 200)), jnp.float32)
    variables = codec.init(jax.random.key(0), w[:1])
    found = codec.apply(variables, w)
    alone = make_codec("mlp", (10,), **SIZES["mlp"])
    inner = {"params": variables["params"]["autoencoder"]}
    np.testing.assert_allclose(
        found, alone.apply(inner, w.reshape(60, 10)).reshape(3, 200), atol=1e-5
    )
    assert np.isfinite(
        jax.grad(lambda v: codec.apply(v, w).sum())(variables)["params"]["autoencoder"]["encoder"][
            "layers_0"
        ]["kernel"]
    ).all()


def test_chunks_and_whole_vectors_keep_the_same_weights():
    phase = np.linspace(0, 3, 40)[:, None]
    w = np.concatenate([np.sin(phase + np.arange(60) / 9), phase * RNG.normal(size=60)], axis=1)
    w = jnp.asarray((w - w.mean(0)) / w.std(), jnp.float32)
    for chunk in (0, 50):
        sizes = {"latent_shape": (2, 2, 2), "hidden_dim": 64}
        codec = make_codec("mlp", (120,), chunk=chunk, **sizes)
        variables = codec.init(jax.random.key(0), w[:1])
        optimizer = optax.adam(3e-3)

        def loss(variables, codec=codec):
            return jnp.mean((codec.apply(variables, w) - w) ** 2)

        @jax.jit
        def step(state, _, loss=loss, optimizer=optimizer):
            variables, opt = state
            value, grads = jax.value_and_grad(loss)(variables)
            updates, opt = optimizer.update(grads, opt)
            return (optax.apply_updates(variables, updates), opt), value

        state, _ = jax.lax.scan(step, (variables, optimizer.init(variables)), None, 300)
        assert 1 - float(loss(state[0])) / float(jnp.mean(w**2)) >= 0.95


LARGE = """
import resource, jax, jax.numpy as jnp
from flown_jax.encoders.codecs import make_codec
size = 10_000_000
codec = make_codec("mlp", (size,), chunk=16384, latent_shape=(4, 4, 4), hidden_dim=256)
w = jnp.sin(jnp.arange(size, dtype=jnp.float32))[None]
variables = jax.jit(codec.init)(jax.random.key(0), jnp.zeros((1, size)))
decode = jax.jit(codec.apply)
assert decode(variables, w).shape == (1, size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_ten_million_weights_take_less_than_four_gibibytes():
    found = subprocess.run(
        [sys.executable, "-c", LARGE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 0.1 < float(found.stdout) < 4


def test_what_chunks_do_not_take_is_refused():
    codec = ChunkedAutoencoder(MLPVAE(in_dim=4, latent_shape=(1, 1, 1), hidden_dim=2), 6, 4)
    variables = codec.init(jax.random.key(0), jnp.zeros((1, 6)))
    with pytest.raises(UserError, match=r"weight vectors \(B, 6\), got \(1, 5\)"):
        codec.apply(variables, jnp.zeros((1, 5)), method="encode")
    with pytest.raises(UserError, match=r"latents \(B, 1, 1, 2\), got \(1, 1, 1, 1\)"):
        codec.apply(variables, jnp.zeros((1, 1, 1, 1)), method="decode")
    with pytest.raises(UserError, match="codec.chunk is 4; chunks are of vectors"):
        make_codec("token", (5, 7), chunk=4, **SIZES["token"])
    with pytest.raises(UserError, match="codec.chunk is 4; chunks are of vectors"):
        make_codec("mlp", (35,), chunk=4, encoder="graph", **SIZES["mlp"])
