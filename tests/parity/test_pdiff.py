"""p-diff's autoencoder and denoiser against PyTorch: its code of February 2024, and ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.losses import pdiff_loss_from_noise
from flown_jax.torch_import import convert, pdiff_autoencoder, pdiff_denoiser
from tests.parity.fixtures import assert_close, load

AUTOENCODER, DENOISER = 5e-5, 2e-5  # tolerances


@pytest.fixture(scope="module", params=["pdiff_ae", "pdiff_ae_small"])
def case(request, source):
    fixture = load(request.param, source)
    variables = convert("pdiff_autoencoder", fixture.params, fixture.config)
    return fixture, pdiff_autoencoder.module_from_config(fixture.config), variables


@pytest.fixture(scope="module")
def unet(source):
    fixture = load("pdiff_unet", source)
    return fixture, convert("pdiff_denoiser", fixture.params, fixture.config)


def test_every_parameter_of_the_autoencoder_has_its_place(case):
    fixture, module, variables = case
    _same_shapes(module, variables, fixture.inputs["w"])


def test_latents_and_what_is_decoded_of_them(case):
    fixture, module, variables = case
    w, expected = jnp.asarray(fixture.inputs["w"]), fixture.outputs
    posterior = module.apply(variables, w, method="encode")
    whole = module.apply(variables, posterior.mode(), method="decode_whole")
    decoded = module.apply(variables, posterior.mode(), method="decode")
    assert_close(_ncl(posterior.mode()), expected["latent"], AUTOENCODER, "latent")
    assert_close(whole[:, None], expected["decoder_raw"], AUTOENCODER, "decoder_raw")
    assert_close(decoded, expected["decoded"], AUTOENCODER, "decoded")
    clean = jnp.mean(jnp.square(decoded - w))
    assert_close(clean, expected["loss_mse_clean"], AUTOENCODER, "loss_mse_clean")


def test_noisy_pass(case):
    fixture, module, variables = case
    inputs, expected = fixture.inputs, fixture.outputs
    loss, aux = pdiff_loss_from_noise(
        lambda w: module.apply(variables, w, method="encode"),
        lambda z: module.apply(variables, z, method="decode"),
        inputs["w"],
        inputs["noise_in"],
        _ncl(inputs["noise_lat"]),
        sigma_in=fixture.config["input_noise_factor"],
        sigma_lat=fixture.config["latent_noise_factor"],
    )
    assert_close(_ncl(aux["latent"]), expected["latent_noisy"], AUTOENCODER, "latent_noisy")
    assert_close(aux["w_hat"], expected["decoded_noisy"], AUTOENCODER, "decoded_noisy")
    assert_close(loss, expected["loss_mse"], AUTOENCODER, "loss_mse")


def test_every_parameter_of_the_denoiser_has_its_place(unet):
    fixture, variables = unet
    module = pdiff_denoiser.module_from_config(fixture.config)
    _same_shapes(module, variables, _ncl(fixture.inputs["x"]), jnp.zeros((), int))


@pytest.mark.parametrize("first", [True, False])
def test_predicted_noise(unet, first):
    fixture, variables = unet
    inputs, expected = fixture.inputs, fixture.outputs
    module = pdiff_denoiser.module_from_config(fixture.config, first_time=first)
    eps = _ncl(module.apply(variables, _ncl(inputs["x"]), inputs["t"]))
    name = "eps_first_t" if first else "eps_per_sample_t"
    assert_close(eps, expected[name], DENOISER, name)
    if first:
        loss = np.mean((eps - inputs["noise"]) ** 2)
        assert_close(loss, expected["loss_mse_first_t"], DENOISER, "loss_mse_first_t")
    # Shares of the number of rows are the same times.
    shares = inputs["t"] / np.float32(module.timesteps)
    again = _ncl(module.apply(variables, _ncl(inputs["x"]), shares))
    assert_close(again, eps, 1e-6, "shares")


def _same_shapes(module, variables, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def _ncl(x):
    """Channels to the other end."""
    return np.asarray(x).transpose(0, 2, 1)
