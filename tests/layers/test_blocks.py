"""Normalisation, embeddings, resampling, attention and residual blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.layers import (
    GroupNorm,
    InstanceNorm1d,
    MultiHeadAttention,
    ResidualBlock,
    SingleHeadAttention,
    TimeResidualBlock,
    mean_pool,
    sinusoidal_embedding,
    upsample_nearest,
)
from tests.layers.helpers import initial_variables, quick_jit, random_variables

pytestmark = pytest.mark.fast


def _maps(channels=8, side=4, batch=2):
    return jax.random.normal(jax.random.key(0), (batch, side, side, channels))


def _apply(module, variables, *inputs):
    return quick_jit(module.apply)(variables, *inputs)


def test_group_norm_gives_each_group_mean_zero_and_variance_one():
    x = 5 + 3 * _maps()
    layer = GroupNorm(num_groups=2, epsilon=1e-6)
    y = _apply(layer, initial_variables(layer, x), x).reshape(2, 16, 2, 4)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-5)


def test_group_norm_of_a_constant_is_its_bias_and_its_gradient_is_finite():
    layer = GroupNorm(num_groups=2, epsilon=1e-6)
    x = jnp.full((1, 2, 2, 4), 1e4)
    variables = initial_variables(layer, x)
    np.testing.assert_array_equal(_apply(layer, variables, x), 0)
    gradient = quick_jit(jax.grad(lambda x: layer.apply(variables, x).sum()))(x)
    assert np.all(np.isfinite(gradient))


def test_group_norm_keeps_half_precision_statistics_in_float32():
    x = (100 + _maps()).astype(jnp.bfloat16)
    layer = GroupNorm(num_groups=2, epsilon=1e-6, dtype=jnp.bfloat16)
    y = _apply(layer, initial_variables(layer, x), x)
    assert y.dtype == jnp.bfloat16
    assert abs(float(y.astype(jnp.float32).mean())) < 1e-2


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(UserError, match="num_groups 3 cannot divide 8 channels"):
        GroupNorm(3, 1e-6).init(jax.random.key(0), _maps())


def test_instance_norm_normalises_each_row():
    x = 2 + jax.random.normal(jax.random.key(0), (2, 50, 3))
    y = InstanceNorm1d().apply({}, x)
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(1), 1, atol=1e-4)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoid_at_zero_is_ones_then_zeros(width):
    y = sinusoidal_embedding(jnp.zeros(2), width)
    assert y.shape == (2, width)
    np.testing.assert_array_equal(y[:, :3], 1)
    np.testing.assert_array_equal(y[:, 3:], 0)


def test_sinusoid_frequencies():
    y = sinusoidal_embedding(jnp.array([2.0]), 4)
    expected = [np.cos(2), np.cos(0.02), np.sin(2), np.sin(0.02)]
    np.testing.assert_allclose(y[0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"needs t \(B,\)"):
        sinusoidal_embedding(jnp.zeros(()), 4)


def test_pooling_undoes_nearest_doubling():
    x = _maps()
    y = upsample_nearest(x)
    np.testing.assert_array_equal(y[:, 1::2, 0::2], x)
    np.testing.assert_allclose(mean_pool(y), x, rtol=1e-6)
    with pytest.raises(UserError, match="even sides"):
        mean_pool(x[:, :3])


@pytest.mark.parametrize(
    "layer",
    [SingleHeadAttention(2, 1e-6), MultiHeadAttention(2, 2, 1e-5), MultiHeadAttention(4, 2, 1e-5)],
)
def test_attention_moves_with_its_places(layer):
    """A permutation of the places permutes the output: no position is special."""
    x = _maps()
    variables = random_variables(layer, x)
    order = jax.random.permutation(jax.random.key(2), 16)

    def permute(x):
        return x.reshape(2, 16, 8)[:, order].reshape(x.shape)

    moved = _apply(layer, variables, permute(x))
    np.testing.assert_allclose(moved, permute(_apply(layer, variables, x)), rtol=1e-4, atol=1e-5)


def test_attention_with_wrong_heads_is_refused():
    with pytest.raises(UserError, match="3 heads cannot divide 8 channels"):
        MultiHeadAttention(3, 2, 1e-5).init(jax.random.key(0), _maps())


def test_both_qkv_orders_are_one_function_of_permuted_parameters():
    x, heads, width = _maps(), 2, 4
    old, new = (MultiHeadAttention(heads, 2, 1e-5, new_order=n) for n in (False, True))
    variables = random_variables(old, x)

    def reorder(leaf):
        parts = leaf.reshape(*leaf.shape[:-1], heads, 3, width)
        return jnp.swapaxes(parts, -3, -2).reshape(leaf.shape)

    params = dict(variables["params"])
    params["qkv"] = jax.tree.map(reorder, params["qkv"])
    y = _apply(new, {"params": params}, x)
    np.testing.assert_allclose(y, _apply(old, variables, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample, side", [("none", 4), ("up", 8), ("down", 2)])
def test_time_block_starts_as_its_shortcut_then_depends_on_the_embedding(
    scale_shift, resample, side
):
    x, embedding = _maps(), jax.random.normal(jax.random.key(3), (2, 6))
    block = TimeResidualBlock(8, 2, 1e-5, scale_shift=scale_shift, resample=resample)
    variables = initial_variables(block, x, embedding)
    shortcut = {"none": lambda x: x, "up": upsample_nearest, "down": mean_pool}[resample](x)
    y = _apply(block, variables, x, embedding)
    np.testing.assert_allclose(y, shortcut, rtol=1e-5, atol=1e-6)

    variables = random_variables(block, x, embedding)
    y = _apply(block, variables, x, embedding)
    assert y.shape == (2, side, side, 8)
    assert float(jnp.abs(y - _apply(block, variables, x, -embedding)).max()) > 1e-2


def test_autoencoder_block_changes_channels_and_passes_gradients():
    block = ResidualBlock(6, 2, 1e-6)
    x = _maps()
    variables = random_variables(block, x)
    assert _apply(block, variables, x).shape == (2, 4, 4, 6)
    gradients = quick_jit(jax.grad(lambda v: jnp.sum(block.apply(v, x) ** 2)))(variables)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients))
