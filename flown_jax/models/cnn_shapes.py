"""PyTorch's shapes of a CNN's tensors, and what shapes alone tell of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flown_jax.models import layout
from flown_jax.models.cnn import CNN

Shape = tuple[int, ...]


def torch_kernels(module: CNN, inputs: int, flat: int) -> list[Shape]:
    """PyTorch's shapes of a CNN's weights, layer by layer; arguments as of `kernel_shapes`."""
    shapes = module.kernel_shapes(inputs, flat)
    return [layout.torch_shape(f"{layer}/kernel", shape) for layer, shape in shapes.items()]


def open_sizes(shapes: Iterable[Shape], module: CNN) -> tuple[int | None, int | None]:
    """Channels of the images and inputs of the first linear layer, where shapes tell them.

    Args:
      shapes: of a CNN's tensors, in any order.
      module: the CNN, which tells everything else.
    """
    first_conv, *convs = (s for s in torch_kernels(module, 0, 0) if len(s) == 4)
    first_dense, *others = (s for s in torch_kernels(module, 0, 0) if len(s) == 2)
    left = list((Counter(shapes) - Counter([*convs, *others])).elements())
    inputs = [
        s[1] for s in left if len(s) == 4 and (s[0], *s[2:]) == (first_conv[0], *first_conv[2:])
    ]
    flat = [s[1] for s in left if len(s) == 2 and s[0] == first_dense[0]]
    return next(iter(inputs), None), next(iter(flat), None)
