"""Autoencoders without convolutions: rows are coded alone, shapes, errors, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.token_vae import MLPVAE, TokenVAE

pytestmark = pytest.mark.fast

ROWS = jax.random.normal(jax.random.key(0), (2, 4, 6))
TOKEN = TokenVAE(row_dim=6, code_dim=3, hidden_dim=8)
MLP = MLPVAE(in_dim=6, latent_shape=(2, 2, 3), hidden_dim=8)


def test_a_row_is_coded_by_itself():
    variables = TOKEN.init(jax.random.key(1), ROWS)
    whole = TOKEN.apply(variables, ROWS, method="encode")
    assert whole.mean.shape == (2, 4, 3)
    alone = TOKEN.apply(variables, ROWS[1, 2], method="encode")
    np.testing.assert_allclose(alone.mean, whole.mean[1, 2], atol=1e-6)
    changed = TOKEN.apply(variables, ROWS.at[:, 0].add(1.0))
    np.testing.assert_allclose(changed[:, 1:], TOKEN.apply(variables, ROWS)[:, 1:], atol=1e-6)
    # Any number of classes goes through the same parameters.
    assert TOKEN.apply(variables, jnp.concatenate([ROWS, ROWS], 1)).shape == (2, 8, 6)


def test_mlp_codes_a_vector_as_a_map():
    w = ROWS[:, 0]
    variables = MLP.init(jax.random.key(1), w)
    posterior = MLP.apply(variables, w, method="encode")
    assert posterior.mean.shape == (2, 2, 2, 3) and posterior.kl().shape == (2,)
    decoded = MLP.apply(variables, posterior.mode(), method="decode")
    np.testing.assert_allclose(decoded, MLP.apply(variables, w), atol=1e-6)
    assert decoded.shape == w.shape


@pytest.mark.parametrize(("module", "w"), [(TOKEN, ROWS), (MLP, ROWS[:, 0])])
def test_a_step_down_the_gradient_reconstructs_better(module, w):
    variables = module.init(jax.random.key(1), w)

    def loss(variables):
        return jnp.mean((module.apply(variables, w) - w) ** 2)

    value, gradient = jax.value_and_grad(loss)(variables)
    # Only the half of the encoder's last layer that makes variances has no part in the mean.
    dead = [g for g in jax.tree.leaves(gradient) if not jnp.any(g)]
    assert not dead
    better = jax.tree.map(lambda v, g: v - 0.05 * g, variables, gradient)
    assert loss(better) < value


def test_other_lengths_are_refused():
    variables = TOKEN.init(jax.random.key(1), ROWS)
    with pytest.raises(ValueError, match="rows have length 5; the encoder takes 6"):
        TOKEN.apply(variables, ROWS[..., :5], method="encode")
    variables = MLP.init(jax.random.key(1), ROWS[:, 0])
    with pytest.raises(ValueError, match="vectors have length 5; the encoder takes 6"):
        MLP.apply(variables, ROWS[:, 0, :5], method="encode")
