"""Single layers against PyTorch's: where a port of a network first departs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.layers import (
    ConvTranspose1d,
    Downsample,
    GroupNorm,
    InstanceNorm1d,
    MultiHeadAttention,
    ResidualBlock,
    SingleHeadAttention,
    TimeResidualBlock,
    Upsample,
    sinusoidal_embedding,
)
from flown_jax.layers.resampling import ALL_SIDES, BOTTOM_RIGHT
from flown_jax.torch_import import autoencoder_kl, unet
from flown_jax.torch_import.common import StateReader
from tests.parity.fixtures import assert_close, load

pytestmark = pytest.mark.fast

TOLERANCE = 2e-6
VAE_NORM, UNET_NORM = (2, 1e-6), (32, 1e-5)  # groups and epsilon of the originals


@pytest.fixture(scope="module")
def fixture(source):
    return load("layers", source)


@pytest.fixture(scope="module")
def reader(fixture):
    return StateReader(fixture.params)


@pytest.mark.parametrize("kind, norm", [("vae", VAE_NORM), ("unet", UNET_NORM)])
def test_group_norm(fixture, reader, kind, norm):
    params = reader.norm(f"{kind}_norm", fixture.config[f"{kind}_channels"])
    for tail in ("", "_tiny"):  # tiny inputs show epsilon
        x = _nhwc(fixture.inputs[f"{kind}_x{tail}"])
        y = GroupNorm(*norm).apply({"params": params}, x)
        assert_close(_nchw(y), fixture.outputs[f"{kind}_norm{tail}"], TOLERANCE, f"{kind}{tail}")


@pytest.mark.parametrize(
    "name, layer, entry",
    [
        ("vae_down", Downsample(BOTTOM_RIGHT), "conv"),
        ("vae_up", Upsample(), "conv"),
        ("unet_down", Downsample(ALL_SIDES), "op"),
        ("unet_up", Upsample(), "conv"),
    ],
)
def test_resampling(fixture, reader, name, layer, entry):
    kind = name.split("_")[0]
    channels = fixture.config[f"{kind}_channels"]
    params = {"conv": reader.conv2d(f"{name}.{entry}", channels, channels)}
    y = layer.apply({"params": params}, _nhwc(fixture.inputs[f"{kind}_x"]))
    assert_close(_nchw(y), fixture.outputs[name], TOLERANCE, name)


def test_autoencoder_attention_and_block(fixture, reader):
    channels, x = fixture.config["vae_channels"], _nhwc(fixture.inputs["vae_x"])
    params = autoencoder_kl.attention(reader, "vae_attn", channels)
    y = SingleHeadAttention(*VAE_NORM).apply({"params": params}, x)
    assert_close(_nchw(y), fixture.outputs["vae_attn"], TOLERANCE, "vae_attn")

    features = fixture.outputs["vae_res"].shape[1]
    params = autoencoder_kl.residual_block(reader, "vae_res", channels, features)
    y = ResidualBlock(features, *VAE_NORM).apply({"params": params}, x)
    assert_close(_nchw(y), fixture.outputs["vae_res"], TOLERANCE, "vae_res")


@pytest.mark.parametrize("name, new_order", [("unet_attn_legacy", False), ("unet_attn_new", True)])
def test_unet_attention(fixture, reader, name, new_order):
    params = unet.attention(reader, name, fixture.config["unet_channels"])
    layer = MultiHeadAttention(fixture.config["heads"], *UNET_NORM, new_order=new_order)
    y = layer.apply({"params": params}, _nhwc(fixture.inputs["unet_x"]))
    assert_close(_nchw(y), fixture.outputs[name], TOLERANCE, name)


@pytest.mark.parametrize(
    "name, scale_shift, resample",
    [
        ("unet_res", False, "none"),
        ("unet_res_ss", True, "none"),
        ("unet_res_up", True, "up"),
        ("unet_res_down", False, "down"),
    ],
)
def test_unet_block(fixture, reader, name, scale_shift, resample):
    features, config = fixture.outputs[name].shape[1], fixture.config
    params = unet.residual_block(
        reader, name, config["unet_channels"], features, config["emb_channels"], scale_shift
    )
    block = TimeResidualBlock(features, *UNET_NORM, scale_shift=scale_shift, resample=resample)
    x, embedding = _nhwc(fixture.inputs["unet_x"]), jnp.asarray(fixture.inputs["emb"])
    y = block.apply({"params": params}, x, embedding)
    assert_close(_nchw(y), fixture.outputs[name], TOLERANCE, name)


def test_instance_norm(fixture):
    for tail in ("", "_tiny"):
        y = InstanceNorm1d().apply({}, _blc(fixture.inputs[f"x1d{tail}"]))
        assert_close(_bcl(y), fixture.outputs[f"inorm1d{tail}"], TOLERANCE, f"inorm1d{tail}")


@pytest.mark.parametrize("name, given", [("convT1d", "x1d"), ("convT1d_k3", "x1d2")])
def test_transposed_convolution(fixture, reader, name, given):
    inputs, outputs, k = fixture.params[f"{name}.weight"].shape
    params = reader.conv_transpose1d(name, inputs, outputs, k)
    y = ConvTranspose1d(outputs, k).apply({"params": params}, _blc(fixture.inputs[given]))
    assert_close(_bcl(y), fixture.outputs[name], TOLERANCE, name)


def test_time_embeddings(fixture):
    cases = [name for name in fixture.outputs if name.startswith("timestep_embedding_")]
    assert cases
    for name in cases:
        kind, width = name.removeprefix("timestep_embedding_").rsplit("_", 1)
        y = sinusoidal_embedding(jnp.asarray(fixture.inputs[f"t_{kind}"]), int(width))
        # A float32 step number of hundreds carries its rounding into the cosine.
        tolerance = 5e-5 if kind == "int" else TOLERANCE
        assert_close(y, fixture.outputs[name], tolerance, name)


def _nhwc(x):
    return jnp.asarray(x).transpose(0, 2, 3, 1)


def _nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def _blc(x):
    return jnp.asarray(x).transpose(0, 2, 1)


def _bcl(x):
    return np.asarray(x).transpose(0, 2, 1)
