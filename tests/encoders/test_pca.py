"""Principal components: round trips, scikit-learn's numbers, whitening, maps, padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from flown_jax.encoders import pca
from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError

pytestmark = pytest.mark.fast

DRAW = np.random.default_rng(0)
# Nine networks of 20 weights about a mean that is far from zero.
W = (3 + DRAW.normal(size=(9, 20)) * DRAW.uniform(0.1, 2, 20)).astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
def test_all_components_restore_the_training_weights(whiten):
    codec = pca.fit(W, 8, whiten=whiten)
    z = codec.encode(W).mode()
    assert z.shape == (9, 8) and codec.weight_dim == 20
    np.testing.assert_allclose(codec.decode(z), W, atol=1e-5)
    assert float(codec.explained.sum()) == pytest.approx(1.0, abs=1e-6)
    # Other weights are restored as far as they lie in the plane: the rest is orthogonal to it.
    other = DRAW.normal(size=(5, 20)).astype(np.float32)
    rest = other - codec.decode(codec.encode(other).mode())
    np.testing.assert_allclose(rest @ codec.components.T, np.zeros((5, 8)), atol=1e-5)
    # Any latent is restored, as the components are orthonormal.
    z = DRAW.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(codec.encode(codec.decode(z)).mode(), z, atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_scikit_learn_finds_the_same(whiten):
    codec, other = pca.fit(W, 4, whiten=whiten), PCA(4, whiten=whiten).fit(W.astype(float))
    np.testing.assert_allclose(codec.variance, other.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(codec.explained, other.explained_variance_ratio_, rtol=1e-5)
    signs = np.sign(np.sum(codec.components * other.components_, axis=1))
    z = codec.encode(W).mode()
    np.testing.assert_allclose(z, other.transform(W) * signs, atol=1e-4)
    np.testing.assert_allclose(
        codec.decode(z), other.inverse_transform(other.transform(W)), atol=1e-4
    )


def test_whitened_latents_have_unit_variance():
    z = pca.fit(W, 5, whiten=True).encode(W).mode()
    np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=1e-4)


def test_signs_are_fixed():
    turned = pca.fit(2 * W.mean(0) - W, 5).components
    np.testing.assert_allclose(turned, pca.fit(W, 5).components, atol=1e-4)


def test_a_posterior_without_variance():
    posterior = pca.fit(W, 3).encode(W)
    assert isinstance(posterior, Posterior)
    np.testing.assert_array_equal(posterior.std, 0.0)
    np.testing.assert_array_equal(posterior.sample(jax.random.key(0)), posterior.mean)


def test_latents_are_maps_and_the_codec_is_a_pytree():
    flat, maps = pca.fit(W, 8), pca.fit(W, (2, 2, 2))
    encode = jax.jit(lambda codec, w: codec.encode(w).mode())
    z = encode(maps, W)
    assert z.shape == (9, 2, 2, 2) and maps.latent_shape == (2, 2, 2)
    np.testing.assert_allclose(z.reshape(9, 8), encode(flat, W), atol=1e-5)
    np.testing.assert_allclose(jax.jit(pca.PCACodec.decode)(maps, z), W, atol=1e-5)
    assert maps.encode(W[0]).mean.shape == (2, 2, 2) and maps.decode(z[0]).shape == (20,)
    assert len(jax.tree.leaves(maps)) == 5


@pytest.mark.parametrize(
    ("w", "rank"),
    [
        (W, 8),
        (DRAW.normal(size=(30, 6)).astype(np.float32), 6),
        (np.concatenate([W, W[:3]]), 8),
        (np.concatenate([W, (W[:3] + W[3:6]) / 2]), 8),  # equal up to rounding
        (np.ones((4, 5)), 0),
    ],
)
def test_more_components_than_there_are(w, rank):
    with pytest.raises(UserError, match=f"asks for {rank + 1} components, but .* have {rank};"):
        pca.fit(w, rank + 1)
    padded = pca.fit(w, (rank + 2,), whiten=True, pad=True)
    z = padded.encode(jnp.asarray(w, jnp.float32)).mode()
    np.testing.assert_array_equal(z[:, rank:], 0.0)
    np.testing.assert_allclose(padded.decode(z), w, atol=1e-5)
    np.testing.assert_allclose(padded.decode(z.at[:, rank:].set(9.0)), w, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pca.fit(W, 0), "latent_size is 0"),
        (lambda: pca.fit(W, (2, -1)), r"latent_size is \(2, -1\)"),
        (lambda: pca.fit(W, ()), "latent_size is"),
        (lambda: pca.fit(W[:1], 1), r"N >= 2 networks, not \(1, 20\)"),
        (lambda: pca.fit(W[0], 1), r"not \(20,\)"),
        (lambda: pca.fit(np.where(W > 3, np.nan, W), 1), "NaN or infinite"),
        (lambda: pca.fit(W, 2).encode(W[:, 1:]), r"vectors \(B, 20\), got \(9, 19\)"),
        (lambda: pca.fit(W, 2).decode(W), r"latents \(B, 2\), got \(9, 20\)"),
        (lambda: pca.fit(W, (2, 2)).decode(W[:2, :2].T[0]), r"latents \(B, 2, 2\)"),
    ],
)
def test_mistakes_are_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
