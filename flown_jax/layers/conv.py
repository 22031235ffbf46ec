"""Two-dimensional convolution whose gradient is fast on CPU, in loops too.

XLA's CPU backend rewrites the two gradients of a convolution to its fast routine only in
straight-line code; inside `scan`, `while`, `map` and `cond` they take a naive path, 45 times
slower. A 3x3 convolution on a 2x2 map is 20 times slower than it need be everywhere. So the
default form chooses, on CPU, by the shape:

- stride 1, same-size output, odd kernel: `canonical`, both gradients written as forward
  convolutions (dx = conv(g, flipped kernel); dw = conv(x with batch and channels exchanged, g));
- the same on a map of at most 2x2: `dense`, one matrix product over the whole map;
- any other stride or padding: `patches`, window entries concatenated and one matrix product. The
  canonical form would need a dilated gradient there, which is on the slow path again.

On other platforms the default is `lax`, XLA's own. The default has a custom reverse rule and
refuses forward-mode differentiation (jvp, jacfwd); `form="lax"` allows it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn.initializers import Initializer

from flown_jax.layers.initializers import torch_kernel, torch_uniform

FORMS = ("auto", "lax", "canonical", "patches", "dense")
Padding = tuple[tuple[int, int], tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_DENSE_POSITIONS = 4  # largest map (H*W) for which one product over the whole map is fastest


def conv2d(
    x: Array,
    kernel: Array,
    *,
    stride: int = 1,
    padding: Padding | None = None,
    form: str = "auto",
) -> Array:
    """Convolution of x with the kernel (cross-correlation, as in PyTorch).

    Args:
      x: maps (B, H, W, C). kernel: (k, k, C, O).
      stride: step in both directions.
      padding: zeros ((top, bottom), (left, right)); None pads (k-1)//2 on every side.
      form: `auto`, or one of the forms named in the module's docstring.
    Returns:
      (B, H', W', O), H' = (H + top + bottom - k)//stride + 1.
    Raises:
      ValueError: unknown form, channels that differ, or a case that the form does not cover.
    """
    if form not in FORMS:
        raise ValueError(f"Convolution form {form!r} is unknown; choose one of {', '.join(FORMS)}.")
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            f"conv2d needs x (B, H, W, C) and kernel (k, k, C, O), got {x.shape} and "
            f"{kernel.shape}."
        )
    k = kernel.shape[0]
    pads = padding or (((k - 1) // 2,) * 2,) * 2
    if form == "auto":
        if k == 1 and stride == 1 and pads == ((0, 0), (0, 0)):
            return jnp.dot(x, kernel[0, 0])
        return _platform_conv(x, kernel, stride, pads)
    if form in ("canonical", "dense") and not _keeps_size(kernel.shape, stride, pads):
        raise ValueError(
            f"Convolution form {form!r} covers stride 1 and same-size output only, not kernel "
            f"{kernel.shape[:2]}, stride {stride}, padding {pads}."
        )
    if form == "canonical":
        return _canonical_conv(x, kernel)
    return _PLAIN[form](x, kernel, stride, pads)


class Conv(nn.Module):
    """Convolution layer, NHWC, with PyTorch's default initialisation.

    Attributes:
      features: output channels.
      kernel_size, stride, padding, form: as in `conv2d`.
      kernel_init, bias_init: None draws the bias from U(+-1/sqrt(fan_in)).
      dtype: of the computation; None keeps the input's. Parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: Padding | None = None
    use_bias: bool = True
    form: str = "auto"
    kernel_init: Initializer = torch_kernel
    bias_init: Initializer | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the maps (B, H', W', features) for x (B, H, W, C)."""
        k, channels = self.kernel_size, x.shape[-1]
        kernel = self.param(
            "kernel", self.kernel_init, (k, k, channels, self.features), jnp.float32
        )
        bias_init = self.bias_init or torch_uniform(k * k * channels)
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        y = conv2d(
            x.astype(dtype),
            kernel.astype(dtype),
            stride=self.stride,
            padding=self.padding,
            form=self.form,
        )
        if self.use_bias:
            y = y + self.param("bias", bias_init, (self.features,), jnp.float32).astype(dtype)
        return y


def _keeps_size(kernel_shape: tuple[int, ...], stride: int, pads: Padding) -> bool:
    k_rows, k_columns = kernel_shape[:2]
    half = k_rows // 2
    return k_rows == k_columns and k_rows % 2 == 1 and stride == 1 and pads == ((half,) * 2,) * 2


def _cpu_form(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, pads) -> str:
    if not _keeps_size(kernel_shape, stride, pads):
        return "patches"
    return "dense" if x_shape[1] * x_shape[2] <= _DENSE_POSITIONS else "canonical"


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _platform_conv(x, kernel, stride, pads):
    on_cpu = _PLAIN[_cpu_form(x.shape, kernel.shape, stride, pads)]
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: on_cpu(x, kernel, stride, pads),
        default=lambda x, kernel: _lax_conv(x, kernel, stride, pads),
    )


def _platform_forward(x, kernel, stride, pads):
    return _platform_conv(x, kernel, stride, pads), (x, kernel)


def _platform_backward(stride, pads, residuals, g):
    x, kernel = residuals
    form = _cpu_form(x.shape, kernel.shape, stride, pads)

    def by_autodiff(conv, x, kernel, g):
        return jax.vjp(lambda x, kernel: conv(x, kernel, stride, pads), x, kernel)[1](g)

    if form == "canonical":
        on_cpu = _canonical_gradients
    else:
        on_cpu = partial(by_autodiff, _PLAIN[form])
    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=partial(by_autodiff, _lax_conv))


_platform_conv.defvjp(_platform_forward, _platform_backward)


def _lax_conv(x, kernel, stride, pads):
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


def _patches_conv(x, kernel, stride, pads):
    k_rows, k_columns, _, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    last_row = padded.shape[1] - k_rows + 1
    last_column = padded.shape[2] - k_columns + 1
    windows = [
        padded[:, i : i + last_row : stride, j : j + last_column : stride]
        for i in range(k_rows)
        for j in range(k_columns)
    ]
    return jnp.dot(jnp.concatenate(windows, -1), kernel.reshape(-1, features))


def _dense_conv(x, kernel, stride, pads):
    """One product over the whole map; the matrix holds a kernel tap for every pair of places."""
    del stride, pads
    batch, height, width, _ = x.shape
    half = kernel.shape[0] // 2
    places = [(row, column) for row in range(height) for column in range(width)]

    def tap(source, target):
        i, j = source[0] - target[0] + half, source[1] - target[1] + half
        inside = 0 <= i < kernel.shape[0] and 0 <= j < kernel.shape[1]
        return kernel[i, j] if inside else jnp.zeros(kernel.shape[2:], kernel.dtype)

    matrix = jnp.concatenate(
        [jnp.concatenate([tap(source, target) for target in places], 1) for source in places], 0
    )
    return jnp.dot(x.reshape(batch, -1), matrix).reshape(batch, height, width, -1)


@jax.custom_vjp
def _canonical_conv(x, kernel):
    return _same_conv(x, kernel)


def _canonical_forward(x, kernel):
    return _same_conv(x, kernel), (x, kernel)


def _canonical_gradients(x, kernel, g):
    dx = _same_conv(g, jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2))
    if kernel.shape[2] <= kernel.shape[3]:
        dw = _exchanged_conv(x, g, kernel.shape).transpose(1, 2, 0, 3)
    else:  # the wider of the two as output channels, which XLA divides among threads
        dw = jnp.flip(_exchanged_conv(g, x, kernel.shape).transpose(1, 2, 3, 0), (0, 1))
    return dx, dw


def _exchanged_conv(maps, weights, kernel_shape):
    """Convolution with channels as the batch and the batch as channels: (C, k, k, O)."""
    pads = ((kernel_shape[0] // 2,) * 2, (kernel_shape[1] // 2,) * 2)
    return _lax_conv(maps.transpose(3, 1, 2, 0), weights.transpose(1, 2, 0, 3), 1, pads)


def _canonical_backward(residuals, g):
    x, kernel = residuals
    return _canonical_gradients(x, kernel, g)


_canonical_conv.defvjp(_canonical_forward, _canonical_backward)


def _same_conv(x, kernel):
    return _lax_conv(x, kernel, 1, ((kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2))


_PLAIN = {
    "lax": _lax_conv,
    "canonical": _lax_conv,
    "patches": _patches_conv,
    "dense": _dense_conv,
}
