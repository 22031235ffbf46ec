"""Many networks as one program: the same function in both forms, gradients and ties included."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.models.cnn import CNN, cnn_medium, cnn_small
from flown_jax.models.many import convolve, logits
from tests.layers.helpers import quick_jit

MODELS, BATCH = 3, 2
# Odd maps, a last convolution with and without pooling, tiles of 2, 4 and 6 columns.
CASES = {
    "small": (cnn_small(activation="tanh"), (28, 28, 1)),
    "small, gelu": (cnn_small(activation="gelu"), (28, 28, 3)),
    "medium": (cnn_medium(activation="leakyrelu"), (32, 32, 3)),
    "own": (
        CNN(channels=(3, 2), kernels=(3, 2), pools=(False, True), hidden=(), num_classes=4),
        (15, 13, 2),
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    cnn, shape = CASES[request.param]
    rng = np.random.default_rng(0)
    shapes = cnn.kernel_shapes(shape[-1], cnn.flat_size(*shape[:2]))

    def draw(size, scale):
        return jnp.asarray(rng.normal(size=(MODELS, *size)) * scale, jnp.float32)

    params = {
        name: {"kernel": draw(size, math.prod(size[:-1]) ** -0.5), "bias": draw(size[-1:], 0.1)}
        for name, size in shapes.items()
    }
    return cnn, params, jnp.asarray(rng.normal(size=(MODELS, BATCH, *shape)), jnp.float32)


def test_tiles_are_the_network(case):
    cnn, params, images = case
    tiles, mapped = logits(cnn, "tiles"), logits(cnn, "map")
    expected = quick_jit(mapped)(params, images)
    np.testing.assert_allclose(quick_jit(tiles)(params, images), expected, atol=1e-5)
    shared = quick_jit(tiles)(params, images[:1])  # the same images for all models
    np.testing.assert_allclose(shared[0], expected[0], atol=1e-5)
    assert shared.shape == expected.shape


def test_gradients_of_both_forms_agree(case):
    cnn, params, images = case

    def gradients(form):
        return quick_jit(jax.grad(lambda p, x: jnp.sum(logits(cnn, form)(p, x) ** 2)))(
            params, images
        )

    ours, expected = gradients("tiles"), gradients("map")
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_among_equal_maxima_the_first_gets_the_gradient():
    """A flat background ties all maxima: shared gradients would differ from PyTorch's."""
    images = jnp.zeros((1, 1, 8, 8, 1)).at[0, 0, 3, 4, 0].set(1.0)
    kernel = jax.random.normal(jax.random.key(0), (1, 3, 3, 1, 2))

    def by_tiles(kernel):
        return jnp.sum(convolve(images, kernel, pooled=True) ** 2)

    def by_windows(kernel):
        y = jax.lax.conv_general_dilated(
            images[0], kernel[0], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        window = (1, 2, 2, 1)
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, window, window, "VALID")
        return jnp.sum(y**2)

    ours, expected = (quick_jit(jax.grad(f))(kernel) for f in (by_tiles, by_windows))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="one of tiles, map, not 'fast'"):
        logits(cnn_small(), "fast")
