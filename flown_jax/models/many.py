"""Many small networks of one architecture as one program: parameters with a leading model axis M.

A convolution network of a few channels is slow when written as convolutions: products of 6 or 8
columns leave the processor idle. It is therefore written as products over tiles: a tile of 2 x t
outputs of a convolution is one row of a matrix product with a Toeplitz matrix of the kernel, whose
columns are laid out so that 2 x 2 max-pooling is a maximum of four slabs. Other networks are mapped
over the models as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.models.activations import get_activation
from flown_jax.models.cnn import CNN

PyTree = Any
Logits = Callable[[PyTree, Array], Array]
FORMS = ("tiles", "map")
_TILE_WIDTHS = (4, 6, 2)  # of a pooled convolution's tile, in outputs; 4 is the fastest of 2 to 8
_WHOLE = 64  # outputs up to which a convolution without pooling is a single tile


def logits(module: nn.Module, form: str | None = None) -> Logits:
    """The function (params, images) -> logits (M, B, n) of M networks.

    Its `params` are the module's, each leaf with a leading axis M; its `images` are
    (M, B, H, W, C), or (1, B, H, W, C) where all networks see the same ones.

    Args:
      module: a network without state; a `CNN` has both forms.
      form: `tiles` or `map`; None takes tiles for a `CNN`. Tiles are the faster form on CPU; on
        accelerators they are plain batched products, where mapped convolutions become grouped ones.
    Raises:
      ValueError: an unknown form, or tiles of a module that is no `CNN`.
    """
    if form is None:
        form = "tiles" if isinstance(module, CNN) else "map"
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}.")
    if form == "map":
        return _mapped(module)
    if not isinstance(module, CNN):
        raise ValueError(f"only a CNN can be written in tiles, not {type(module).__name__}.")
    return _tiled(module)


def _mapped(module: nn.Module) -> Logits:
    def one(params: PyTree, images: Array) -> Array:
        return module.apply({"params": params}, images)

    def many(params: PyTree, images: Array) -> Array:
        shared = images.shape[0] == 1
        axes = (0, None) if shared else (0, 0)
        return jax.vmap(one, in_axes=axes)(params, images[0] if shared else images)

    return many


def _tiled(cnn: CNN) -> Logits:
    activation = get_activation(cnn.activation)

    def many(params: PyTree, images: Array) -> Array:
        x = images
        for i, pooled in enumerate(cnn.pools):
            layer = params[f"conv_{i}"]
            x = convolve(x, layer["kernel"], pooled=pooled)
            x = activation(x + layer["bias"][:, None, None, None, :])
        # Flattened as PyTorch does: channel, row, column.
        x = jnp.moveaxis(x, -1, 2).reshape(*x.shape[:2], -1)
        for i in range(len(cnn.hidden) + 1):
            layer = params[f"dense_{i}"]
            x = _product(x, layer["kernel"]) + layer["bias"][:, None]
            x = activation(x) if i < len(cnn.hidden) else x
        return x

    return many


def convolve(x: Array, kernel: Array, *, pooled: bool) -> Array:
    """Convolutions without padding, and 2 x 2 max-pooling that floors if asked for.

    Args:
      x: (M, B, H, W, C), or (1, B, H, W, C) where all models share it.
      kernel: (M, k, k, C, O).
      pooled: take maxima of 2 x 2 outputs; a gradient goes to the first of equal ones.
    Returns:
      (M, B, H', W', O).
    """
    size, outputs = kernel.shape[1], kernel.shape[-1]
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    if pooled:
        height, width = 2 * (height // 2), 2 * (width // 2)
        tile = (2, next((t for t in _TILE_WIDTHS if width % t == 0), width))
    else:
        tile = (height, width) if height * width <= _WHOLE else (1, 1)
    rows, columns = height // tile[0], width // tile[1]
    places = _pooled_places(tile) if pooled else np.ndindex(tile)
    y = _product(_tiles(x, size, tile, rows, columns), _toeplitz(kernel, tile, places))
    if pooled:
        y = _first_max(y.reshape(*y.shape[:2], 4, -1))
        tile = (1, tile[1] // 2)
    y = y.reshape(y.shape[0], x.shape[1], rows, columns, *tile, outputs)
    return jnp.swapaxes(y, 3, 4).reshape(*y.shape[:2], rows * tile[0], -1, outputs)


def _tiles(x: Array, size: int, tile: tuple[int, int], rows: int, columns: int) -> Array:
    """Inputs of every tile, (M, B rows columns, K), K = (a, b, c)."""
    high, wide = size + tile[0] - 1, size + tile[1] - 1
    # Strided slices, columns first: a row's window is then copied as one run.
    across = [x[..., b : b + tile[1] * (columns - 1) + 1 : tile[1], :] for b in range(wide)]
    x = jnp.stack(across, axis=4)  # (M, B, H, columns, wide, C)
    down = [x[:, :, a : a + tile[0] * (rows - 1) + 1 : tile[0]] for a in range(high)]
    x = jnp.stack(down, axis=4)  # (M, B, rows, columns, high, wide, C)
    return x.reshape(x.shape[0], -1, high * wide * x.shape[-1])


def _pooled_places(tile: tuple[int, int]) -> list[tuple[int, int]]:
    """Outputs (y, x) of a tile of two rows, in slabs of one member of each pooling window."""
    return [(y, 2 * h + x) for y in (0, 1) for x in (0, 1) for h in range(tile[1] // 2)]


def _toeplitz(kernel: Array, tile: tuple[int, int], places: Iterable[tuple[int, ...]]) -> Array:
    """The kernel at each of the tile's outputs in the order of `places`, (M, K, outputs O)."""
    models, size, _, channels, _ = kernel.shape
    high, wide = size + tile[0] - 1, size + tile[1] - 1
    padded = [
        jnp.pad(kernel, ((0, 0), (y, high - size - y), (x, wide - size - x), (0, 0), (0, 0)))
        for y, x in places
    ]
    return jnp.stack(padded, axis=4).reshape(models, high * wide * channels, -1)


def _product(x: Array, matrix: Array) -> Array:
    """x (M or 1, n, K) times matrix (M, K, N), (M, n, N)."""
    if x.shape[0] == 1 and matrix.shape[0] > 1:
        return jnp.einsum("nk,mkf->mnf", x[0], matrix)
    return jnp.einsum("mnk,mkf->mnf", x, matrix)


@jax.custom_vjp
def _first_max(slabs: Array) -> Array:
    """Maximum over the axis before the last; the gradient goes to the first largest entry.

    Automatic differentiation shares it between equal entries, and images with a flat
    background have many.
    """
    return jnp.max(slabs, axis=-2)


def _first_max_forward(slabs: Array) -> tuple[Array, tuple[Array, Array]]:
    largest = jnp.max(slabs, axis=-2)
    return largest, (slabs, largest)


def _first_max_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    slabs, largest = saved
    left, parts = jnp.ones(largest.shape, bool), []
    for i in range(slabs.shape[-2]):
        here = left & (slabs[..., i, :] == largest)
        parts.append(jnp.where(here, gradient, 0.0))
        left &= ~here
    return (jnp.stack(parts, axis=-2),)


_first_max.defvjp(_first_max_forward, _first_max_backward)


def hits(scores: Array, labels: Array) -> Array:
    """Whether the largest of scores (..., n) is that of the label (...); NaN is no answer."""
    return (jnp.argmax(scores, axis=-1) == labels) & ~jnp.isnan(scores).any(axis=-1)
