"""Weight autoencoder against D2NWG's and latent diffusion's PyTorch code (paper A.2.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders import Posterior, reconstruction_loss, vae_loss_from_noise
from flown_jax.torch_import import convert
from flown_jax.torch_import.autoencoder_kl import module_from_config
from tests.parity.fixtures import assert_close, load

TOLERANCE = 1e-5
WEIGHT_FIXTURES = ("autoencoder_kl", "autoencoder_kl_chunks")


@pytest.fixture(scope="module", params=(*WEIGHT_FIXTURES, "autoencoder_kl_ldm"))
def any_case(request, source):
    return _case(request.param, source)


@pytest.fixture(scope="module", params=WEIGHT_FIXTURES)
def weight_case(request, source):
    return _case(request.param, source)


def test_every_parameter_has_its_place(any_case):
    fixture, module, variables = any_case
    w = jnp.zeros((1, *_weights(fixture).shape[1:]))
    shapes = jax.eval_shape(module.init, jax.random.key(0), w)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_encoder_posterior_and_decoder(any_case):
    fixture, module, variables = any_case
    w, expected = _weights(fixture), fixture.outputs
    apply = _apply(module, variables)
    posterior = apply("encode", w)
    z = posterior.from_noise(_nhwc(fixture.inputs["eps"]))
    decoded = apply("decode", z)
    assert_close(_nchw(apply("moments", w)), expected["moments"], TOLERANCE, "moments")
    assert_close(_nchw(z), expected["z"], TOLERANCE, "z")
    decoded = decoded if decoded.ndim == 2 else _nchw(decoded)
    assert_close(decoded, expected["decoded"], TOLERANCE, "decoded")
    assert_close(posterior.kl(), expected["kl_per_sample"], TOLERANCE, "kl")


def test_intermediate_values(weight_case):
    fixture, module, variables = weight_case
    w, expected = _weights(fixture), fixture.outputs
    apply = _apply(module, variables)
    posterior = apply("encode", w)
    assert_close(_nchw(apply("feature_map", w)), expected["feature_map"], TOLERANCE, "feature_map")
    assert_close(_nchw(apply("features", w)), expected["h"], TOLERANCE, "h")
    for name in ("mean", "logvar", "std"):
        assert_close(_nchw(getattr(posterior, name)), expected[name], TOLERANCE, name)
    decoded_mode = apply("decode", posterior.mode())
    assert_close(decoded_mode, expected["decoded_mode"], TOLERANCE, "decoded_mode")
    assert_close(posterior.kl().mean(), expected["kl_mean"], TOLERANCE, "kl_mean")


def test_losses(weight_case):
    fixture, module, variables = weight_case
    w, expected = _weights(fixture), fixture.outputs
    apply = _apply(module, variables)
    pairs = {"l1_sum_plus_1000mse": "loss_d2nwg", "l1_sum": "loss_l1_kl", "mse": "loss_mse_kl"}
    for reconstruction, name in pairs.items():
        loss, aux = vae_loss_from_noise(
            lambda w: apply("encode", w),
            lambda z: apply("decode", z),
            w,
            _nhwc(fixture.inputs["eps"]),
            reconstruction=reconstruction,
            kl_weight=fixture.config["kl_weight"],
        )
        assert_close(loss, expected[name], TOLERANCE, name)
    l1_sum = reconstruction_loss("l1_sum", w, aux["w_hat"])
    mse = reconstruction_loss("mse", w, aux["w_hat"])
    assert_close(l1_sum, expected["rec_l1_sum"], TOLERANCE, "rec_l1_sum")
    assert_close(mse, expected["rec_mse_mean"], TOLERANCE, "rec_mse_mean")


def test_noisy_pass(weight_case):
    fixture, module, variables = weight_case
    w, inputs, expected = _weights(fixture), fixture.inputs, fixture.outputs
    apply = _apply(module, variables)
    moments = apply("moments", w + inputs["xi_in"])
    assert_close(_nchw(moments), expected["moments_noisy"], TOLERANCE, "moments_noisy")
    loss, aux = vae_loss_from_noise(
        lambda w: apply("encode", w),
        lambda z: apply("decode", z),
        w,
        _nhwc(inputs["eps"]),
        reconstruction="mse",
        kl_weight=fixture.config["kl_weight"],
        noise_in=inputs["xi_in"],
        noise_lat=_nhwc(inputs["xi_lat"]),
    )
    assert_close(_nchw(aux["latent"]), expected["z_noisy"], TOLERANCE, "z_noisy")
    assert_close(aux["w_hat"], expected["decoded_noisy"], TOLERANCE, "decoded_noisy")
    assert_close(loss, expected["loss_flown"], TOLERANCE, "loss_flown")


def test_extreme_moments_are_clipped(weight_case):
    fixture, _, _ = weight_case
    posterior = Posterior.from_moments(_nhwc(fixture.inputs["moments_extreme"]))
    expected = fixture.outputs
    assert_close(_nchw(posterior.logvar), expected["logvar_extreme"], TOLERANCE, "logvar_extreme")
    assert_close(posterior.kl(), expected["kl_extreme"], TOLERANCE, "kl_extreme")


def _case(name, source):
    fixture = load(name, source)
    variables = convert("autoencoder_kl", fixture.params, fixture.config)
    return fixture, module_from_config(fixture.config), variables


def _weights(fixture):
    inputs = fixture.inputs
    return jnp.asarray(inputs["w"]) if "w" in inputs else _nhwc(inputs["x"])


def _apply(module, variables):
    return lambda method, x: module.apply(variables, x, method=method)


def _nhwc(x):
    return jnp.asarray(x).transpose(0, 2, 3, 1)


def _nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)
