"""Codecs behind one interface: shapes, order of classes, vectors and rows, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.errors import UserError

SIZES = {
    "token": {"code_dim": 3, "hidden_dim": 8},
    "mlp": {"latent_shape": (4, 4, 2), "hidden_dim": 8},
    "autoencoder_kl": {
        "resolution": 8,
        "ch": 4,
        "ch_mult": (1, 1),
        "num_res_blocks": 1,
        "z_channels": 2,
        "embed_dim": 2,
        "num_groups": 2,
    },
}
LATENTS = {"token": (5, 3), "mlp": (4, 4, 2), "autoencoder_kl": (4, 4, 2)}
X1 = jax.random.normal(jax.random.key(1), (2, 5, 7))


@pytest.mark.parametrize("form", SIZES)
def test_every_form_goes_there_and_back(form):
    codec = make_codec(form, (5, 7), **SIZES[form])
    variables = jax.jit(codec.init)(jax.random.key(0), X1)

    @jax.jit
    def there_and_back(variables, x1):
        posterior = codec.apply(variables, x1, method="encode")
        return posterior, codec.apply(variables, posterior.mode(), method="decode")

    posterior, decoded = there_and_back(variables, X1)
    assert posterior.mean.shape == posterior.std.shape == (2, *LATENTS[form])
    assert decoded.shape == X1.shape and jnp.isfinite(decoded).all()
    # The result depends on the input.
    assert jnp.abs(there_and_back(variables, X1[::-1])[1] - decoded).max() > 1e-6


def test_the_token_codec_does_not_know_the_order_of_classes():
    codec = make_codec("token", (5, 7), **SIZES["token"])
    variables = codec.init(jax.random.key(0), X1)
    order = jnp.asarray([3, 0, 4, 1, 2])
    z = codec.apply(variables, X1, method="encode").mode()
    permuted = codec.apply(variables, X1[:, order], method="encode").mode()
    np.testing.assert_allclose(permuted, z[:, order], atol=1e-6)
    np.testing.assert_allclose(
        codec.apply(variables, X1[:, order]), codec.apply(variables, X1)[:, order], atol=1e-6
    )


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="codec.form is 'pca'; it must be one of autoencoder_kl"):
        make_codec("pca", (5, 7))


def test_a_head_of_another_size_is_refused():
    codec = make_codec("token", (5, 5), **SIZES["token"])
    with pytest.raises(ValueError, match="rows have length 6; the encoder takes 5"):
        codec.init(jax.random.key(0), X1[..., :6])


@pytest.mark.parametrize("form", ["mlp", "autoencoder_kl"])
def test_a_flat_form_takes_vectors_as_the_rows_that_they_are_made_of(form):
    vectors = make_codec(form, (35,), **SIZES[form])
    heads = make_codec(form, (5, 7), **SIZES[form])
    variables = jax.jit(vectors.init)(jax.random.key(0), X1.reshape(2, 35))
    of_heads = {"params": {"autoencoder": variables["params"]}}
    # Weight rows first, then the biases.
    flat = jnp.concatenate([X1[..., :-1].reshape(2, -1), X1[..., -1]], axis=-1)
    z = vectors.apply(variables, flat, method="encode").mode()
    np.testing.assert_allclose(heads.apply(of_heads, X1, method="encode").mode(), z, atol=1e-5)
    decoded = heads.apply(of_heads, z, method="decode")
    back = vectors.apply(variables, z, method="decode")
    np.testing.assert_allclose(decoded[..., -1], back[:, -5:], atol=1e-5)
    np.testing.assert_allclose(decoded[..., :-1].reshape(2, -1), back[:, :-5], atol=1e-5)


def test_codes_of_rows_refuse_vectors():
    with pytest.raises(UserError, match=r"'token' takes a row a class, .* vectors \(35,\)"):
        make_codec("token", (35,), **SIZES["token"])


def test_sizes_that_came_through_json_are_hashable():
    sizes = tuples({"latent_shape": [4, 4, 2], "hidden_dim": 8})
    assert sizes == SIZES["mlp"] and hash(make_codec("mlp", (35,), **sizes)) is not None
