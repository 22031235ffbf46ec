"""Autoencoders of chunks: what they are made of, what they keep, what they need."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from flown_jax.encoders.chunks import ChunkedAutoencoder
from flown_jax.encoders.codecs import make_codec
from flown_jax.encoders.posterior import Point, Posterior
from flown_jax.errors import UserError
from tests.layers.helpers import quick_jit

SIZES = {
    "mlp": {"latent_shape": (2, 2, 3), "hidden_dim": 8},
    "autoencoder_kl": {
        "resolution": 4,
        "ch": 2,
        "ch_mult": (1,),
        "num_res_blocks": 1,
        "z_channels": 1,
        "embed_dim": 1,
    },
    "pdiff": {
        "kernel": 3,
        "fold": 3,
        "encoder_channels": (2, 2),
        "decoder_channels": (2, 4),
    },
}
# Of one chunk: latents' shape.
LATENTS = {"mlp": (2, 2, 3), "autoencoder_kl": (4, 4, 1), "pdiff": (3, 2)}
W = jax.random.normal(jax.random.key(1), (3, 50))  # in chunks of 20: two and a half


def whole_and_chunked(form, **more):
    codec = make_codec(form, (50,), chunk=20, **SIZES[form]).clone(**more)
    return make_codec(form, (20,), **SIZES[form]), codec


@pytest.mark.parametrize("form", SIZES)
def test_chunks_are_coded_each_by_itself(form):
    one, codec = whole_and_chunked(form, at_once=2)  # five groups, one of which is half padding
    variables = quick_jit(codec.init)(jax.random.key(0), W)
    own = {"params": variables["params"]["autoencoder"]}

    @quick_jit
    def run(w):
        posterior = codec.apply(variables, w, method="encode")
        chunks = jnp.pad(w, ((0, 0), (0, 10))).reshape(9, 20)
        parts = one.apply(own, chunks, method="encode")
        again = codec.apply(variables, posterior.mode(), method="decode")
        return posterior, again, parts, one.apply(own, parts.mode(), method="decode")

    posterior, decoded, parts, expected = run(W)
    *map_, channels = LATENTS[form]
    assert posterior.mean.shape == (3, *map_, 3 * channels)
    assert type(posterior) is (Point if form == "pdiff" else Posterior)
    for found, part in ((posterior.mean, parts.mean), (posterior.logvar, parts.logvar)):
        rows = np.asarray(part).reshape(3, 3, *map_, channels)
        np.testing.assert_allclose(found, np.concatenate(rows.swapaxes(0, 1), -1), atol=1e-5)
    assert decoded.shape == W.shape
    np.testing.assert_allclose(decoded, expected.reshape(3, 60)[:, :50], atol=1e-5)


def test_gradients_do_not_depend_on_how_many_chunks_are_at_once():
    _, codec = whole_and_chunked("mlp")
    variables = codec.init(jax.random.key(0), W)

    def loss(variables, at_once):
        return jnp.square(codec.clone(at_once=at_once).apply(variables, W) - W).mean()

    slopes = [quick_jit(jax.grad(loss), static_argnums=1)(variables, n) for n in (2, None)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *slopes)


def test_a_chunk_longer_than_the_vector_is_one_padded_vector():
    codec = make_codec("mlp", (50,), chunk=64, **SIZES["mlp"])
    variables = codec.init(jax.random.key(0), W)
    assert codec.count == 1 and codec.apply(variables, W).shape == W.shape


def test_padding_is_cut_where_chunks_are_kept_as_they_are():
    for chunk in (7, 10, 50, 64):
        codec = ChunkedAutoencoder(_Kept(), in_dim=50, chunk=chunk, at_once=2)
        z = codec.apply({}, W, method="encode").mode()
        assert z.shape == (3, 2, codec.count * chunk)
        np.testing.assert_array_equal(codec.apply({}, z, method="decode"), W)


def test_chunked_and_whole_vectors_are_both_reconstructed():
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, 48)[:, None]
    course = np.concatenate([time, np.sin(4 * time)], 1)  # a trajectory's states
    w = jnp.asarray(course @ rng.normal(size=(2, 60)), jnp.float32)
    w = (w - w.mean(0)) / w.std(0)
    for chunk in (0, 20):
        codec = make_codec("mlp", (60,), chunk=chunk, latent_shape=(1, 1, 6), hidden_dim=48)
        assert _kept(codec, w) > 0.95, chunk


def test_what_has_no_chunks_is_one_sentence():
    token = {"code_dim": 3, "hidden_dim": 8}
    with pytest.raises(UserError, match="^codec.form 'token' codes rows, .* must be 0, not 20.$"):
        make_codec("token", (5, 10), chunk=20, **token)
    with pytest.raises(UserError, match="^codec.encoder 'graph' codes graphs, .* be 0, not 20.$"):
        make_codec("mlp", (50,), chunk=20, encoder="graph", **SIZES["mlp"])
    with pytest.raises(UserError, match="codec.chunk is -1; it must be a whole number from 0"):
        make_codec("mlp", (50,), chunk=-1, **SIZES["mlp"])
    _, codec = whole_and_chunked("mlp")
    with pytest.raises(UserError, match=r"weight vectors \(B, 50\), got \(3, 49\)"):
        codec.init(jax.random.key(0), W[:, 1:])
    variables = codec.init(jax.random.key(0), W)
    with pytest.raises(UserError, match=r"latents of 3 chunks .* got \(3, 2, 2, 10\)"):
        codec.apply(variables, jnp.zeros((3, 2, 2, 10)), method="decode")


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_ten_million_weights_need_little_memory():
    # The peak of the program itself: what getrusage tells begins with that of the process before.
    code = """
import pathlib, jax, jax.numpy as jnp
from flown_jax.encoders.codecs import make_codec
size = 10_000_000
codec = make_codec("mlp", (size,), chunk=4096, latent_shape=(1, 1, 2), hidden_dim=64)
w = jnp.sin(jnp.arange(size, dtype=jnp.float32))[None]
variables = jax.jit(codec.init)(jax.random.key(0), w)
run = jax.jit(lambda v, w, method: codec.apply(v, w, method=method), static_argnums=2)
z = run(variables, w, "encode").mode()
assert z.shape == (1, 1, 1, 2 * 2442)
assert run(variables, z, "decode").shape == w.shape
slopes = jax.jit(jax.grad(lambda v: jnp.square(codec.apply(v, w) - w).mean()))(variables)
assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
status = pathlib.Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(found.stdout) < 2 * 2**20  # KiB; a whole vector's parameters alone are 4.8 GiB


class _Kept(nn.Module):
    """Every weight twice, in a sequence of two: nothing is lost."""

    def encode(self, w):
        return Point.at(jnp.stack([w, -w], 1))

    def decode(self, z):
        return z[:, 0]


def _kept(codec, w):
    """R2 after some steps of Adam."""
    variables, optimizer = codec.init(jax.random.key(0), w), optax.adam(5e-3)

    def loss(variables):
        return jnp.square(codec.apply(variables, w) - w).mean() / w.var()

    def step(carry, _):
        variables, state = carry
        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return (optax.apply_updates(variables, updates), state), None

    @quick_jit
    def train(variables):
        start = (variables, optimizer.init(variables))
        (variables, _), _ = jax.lax.scan(step, start, None, 300)
        return 1 - loss(variables)

    return float(train(variables))
