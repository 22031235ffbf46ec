"""p-diff's autoencoder: sizes, what it cannot express, its loss, sentences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.losses import pdiff_loss_from_noise
from flown_jax.encoders.pdiff_autoencoder import SIZES, PDiffAutoencoder
from flown_jax.errors import UserError
from tests.layers.helpers import initial_variables, quick_jit

NARROW = {
    "kernel": 3,
    "fold": 3,
    "encoder_channels": (2, 2, 2),
    "decoder_channels": (2, 8, 8),
}
W = jax.random.normal(jax.random.key(1), (2, 150))


@pytest.fixture(scope="module")
def narrow():
    module = PDiffAutoencoder(in_dim=150, **NARROW)
    return module, initial_variables(module, W)


@pytest.mark.parametrize(
    ("size", "dim", "latent", "parameters"),
    [
        ("medium", 2048, (3, 4), 1_000_497),
        ("medium", 10_853, (17, 4), 1_000_497),
        ("small", 2048, (26, 2), 39_393),
        ("small", 10_853, (134, 2), 39_393),
    ],
)
def test_published_sizes(size, dim, latent, parameters):
    module = PDiffAutoencoder(in_dim=dim, **SIZES[size])
    w = jnp.zeros((1, dim))
    shapes = jax.eval_shape(module.init, jax.random.key(0), w)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    encode = jax.eval_shape(lambda v: module.apply(v, w, method="encode").mode(), shapes)
    assert module.latent_shape == encode.shape[1:] == latent


def test_it_is_no_variational_autoencoder(narrow):
    module, variables = narrow
    posterior = module.apply(variables, W, method="encode")
    assert jnp.abs(posterior.mode()).max() < 1
    np.testing.assert_array_equal(posterior.kl(), np.zeros(2))
    np.testing.assert_array_equal(posterior.sample(jax.random.key(0)), posterior.mode())


def test_directions_of_the_latent_that_change_nothing(narrow):
    module, variables = narrow
    length, channels = module.latent_shape
    z = jax.random.uniform(jax.random.key(2), (length, channels), minval=-1, maxval=1)
    slopes = quick_jit(jax.jacfwd(lambda z: module.apply(variables, z[None], method="decode")[0]))
    found = np.linalg.svd(np.asarray(slopes(z), np.float64).reshape(150, -1), compute_uv=False)
    # A mean of each channel is exactly lost, its scale but for the normalisation's epsilon (which
    # counts where all of a channel are negative, and so a hundred times as small).
    assert (z > 0).any(0).all()
    assert (found[-channels:] < 1e-5 * found[0]).all()
    assert (found > 1e-3 * found[0]).sum() <= (length - 2) * channels


def test_the_encoder_does_not_see_the_vector_s_scale(narrow):
    module, variables = narrow
    latents = [module.apply(variables, s * W, method="encode").mode() for s in (1.0, 3.0)]
    np.testing.assert_allclose(*latents, atol=1e-3)


def test_noisy_latents_are_clipped_and_clean_ones_decoded_as_they_are():
    given = []
    w, noise = jnp.full((1, 3), 0.5), jnp.asarray([[4.0, -4.0, 0.1]])

    class Same:
        def __init__(self, z):
            self.z = z

        def mode(self):
            return self.z

    def decode(z):
        given.append(z)
        return z

    for sigma_lat in (0.5, 0.0):
        loss, aux = pdiff_loss_from_noise(
            Same, decode, w, 0 * w, noise, sigma_in=0.1, sigma_lat=sigma_lat
        )
        np.testing.assert_allclose(loss, np.mean((np.asarray(aux["w_hat"]) - 0.5) ** 2), rtol=1e-6)
    # Half of 0.9 * 0.5, and half of the noise.
    np.testing.assert_allclose(given[0], [[1.0, -1.0, 0.275]], rtol=1e-6)
    np.testing.assert_allclose(given[1], 0.45 * np.ones((1, 3)), rtol=1e-6)


@pytest.mark.parametrize(("size", "least"), [("medium", 1250), ("small", 81)])
def test_short_vectors_are_refused(size, least):
    def init(dim):
        return jax.eval_shape(
            PDiffAutoencoder(in_dim=dim, **SIZES[size]).init, jax.random.key(0), jnp.zeros((1, dim))
        )

    with pytest.raises(UserError, match=f"length {least // 2} are too short .* takes {least} or"):
        init(least // 2)
    with pytest.raises(UserError, match="too short"):
        init(least - 1)
    init(least)


def test_other_shapes_are_refused(narrow):
    module, variables = narrow
    with pytest.raises(UserError, match=r"weight vectors \(B, 150\), got \(2, 149\)"):
        module.apply(variables, W[:, 1:], method="encode")
    length, channels = module.latent_shape
    with pytest.raises(UserError, match=rf"latents \(B, {length}, {channels}\), got \(1, 2, 2\)"):
        module.apply(variables, jnp.zeros((1, 2, 2)), method="decode")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fold": 4}, "kernel and fold must be equal and at least 2, got 3 and 4"),
        ({"decoder_channels": (2, 8)}, "must be as many as encoder_channels"),
        ({"decoder_channels": (3, 8, 8)}, "and begin with their last"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        PDiffAutoencoder(in_dim=150, **NARROW | change).init(jax.random.key(0), W)
