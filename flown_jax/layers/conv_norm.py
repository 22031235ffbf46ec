"""A convolution without bias and its BatchNorm, as in PyTorch's residual networks."""

from __future__ import annotations

from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer

from flown_jax.layers.batch_axis import bound_axis


def conv_norm(
    x: Array,
    width: int,
    size: int,
    *,
    train: bool,
    names: tuple[str, str],
    kernel_init: Initializer,
    stride: int = 1,
) -> Array:
    """The normalised output, (B, H / stride, W / stride, width); call it in a compact method.

    The running variance is the biased one, where PyTorch keeps n / (n - 1) of it.

    Args:
      x: (B, H, W, C); its dtype is that of the computation.
      width: outputs. size: side of the kernel, odd; the border is padded evenly.
      train: normalise by the batch and update `batch_stats` (momentum 0.9).
      names: of the convolution and of the normalisation.
      kernel_init: of the convolution.
    """
    conv, norm = names
    x = nn.Conv(
        width,
        (size, size),
        strides=stride,
        padding=((size // 2,) * 2,) * 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=x.dtype,
        name=conv,
    )(x)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels; as fast on CPU.
        axis_name=bound_axis(),  # a batch that devices share is normalised as a whole
        dtype=x.dtype,
        name=norm,
    )(x)
