"""The base network of imported weights: named by the user, or told by the shapes of its tensors."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.models.cnn import CNN
from flown_jax.models.cnn_shapes import open_sizes, torch_kernels
from flown_jax.models.mlp import MLP
from flown_jax.torch_import.names import fitting, without_wrappers
from flown_jax.weights.spec import WeightSpec

Shapes = list[tuple[int, ...]]

# The zoo's two CNNs (channels, kernels, pools, hidden), and the side after the last convolution.
_SMALL: dict[str, Any] = {
    "channels": [8, 6, 4],
    "kernels": [5, 5, 2],
    "pools": [True, True, False],
    "hidden": [20],
}
_MEDIUM: dict[str, Any] = {
    "channels": [16, 32, 15],
    "kernels": [3, 3, 3],
    "pools": [True, True, True],
    "hidden": [20],
}
_LAST_SIDE = ((_SMALL, 3), (_MEDIUM, 2))


@dataclass(frozen=True)
class Network:
    """Where the numbers of a base network's state dict belong.

    Attributes:
      spec: the layout of its weights.
      buffers_spec: the layout of its running statistics, None where it has none.
    """

    spec: WeightSpec
    buffers_spec: WeightSpec | None = None

    @property
    def is_chain(self) -> bool:
        """Whether the order of layers says as much as their names."""
        return self.spec.model == "cnn"

    @property
    def classes(self) -> int:
        """How many the whole network tells apart."""
        return int(self.spec.sizes_dict["num_classes"])

    def part(self, names: set[str]) -> Network:
        """The layout of those tensors alone."""
        spec, buffers = self.spec, self.buffers_spec
        if self.is_chain and len(names) == len(spec.names):
            return self
        if not names >= set(spec.names):
            spec = spec.subset(lambda name: name in names)
        if buffers is not None and not names >= set(buffers.names):
            some = not names.isdisjoint(buffers.names)
            buffers = buffers.subset(lambda name: name in names) if some else None
        return Network(spec, buffers)


def network(model: str, sizes: Mapping[str, Any], inputs: Mapping[str, Any]) -> Network:
    """The layout of a registered base network.

    Args:
      model, sizes: as `models.registry.build` takes them; besides, `image` may be the side and the
        channels of images, for inputs that do not tell.
      inputs: the preprocessing of its images, {} where unknown.
    Raises:
      UserError: an unknown model or size, or images that the network cannot take.
    """
    sizes = dict(sizes)
    side, channels = sizes.pop("image", (32, 3))
    side, channels = inputs.get("size", side), inputs.get("channels", channels)
    module = registry.build(model, sizes)
    images = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    try:
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"this {model} cannot take images of {side}x{side}x{channels}: check its sizes and "
            "the size and channels of its inputs"
        ) from error
    spec = WeightSpec.from_module(module, variables, inputs=inputs)
    buffers = None
    if "batch_stats" in variables:
        buffers = WeightSpec.from_module(
            module, variables, inputs=inputs, collections=("batch_stats",)
        )
    return Network(spec, buffers)


def resolve(
    model: str | None,
    sizes: Mapping[str, Any] | None,
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
) -> tuple[str, dict[str, Any]]:
    """Model and sizes as `network` takes them: those given, completed by what the shapes tell.

    Args:
      model, sizes: what the user said; None where nothing.
      shapes: of the tensors of a whole state dict, by name, in any order.
      where: begins sentences.
    Raises:
      UserError: the shapes do not tell, or the network is a CNN or an MLP whose activation nobody
        said.
    """
    shapes = without_wrappers(shapes)
    found = infer(shapes)
    if model is None and found is None:
        raise UserError(f"{where}: its shapes do not tell the network; give its model and sizes")
    name, complete = found if found is not None and model in (None, found[0]) else (model, {})
    assert name is not None
    complete = {**complete, **(sizes or {})}
    owner = {"cnn": "a CNN's", "mlp": "an MLP's"}.get(name)
    if owner and "activation" not in complete:
        raise UserError(
            f"{where}: no shape tells {owner} activation; give it in sizes, such as "
            '{"activation": "tanh"}'
        )
    if (image := _image(registry.build(name, complete), shapes)) is not None:
        complete["image"] = image
    return name, complete


def infer(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
    """Model and sizes that the shapes of a state dict tell beyond doubt, or None.

    They tell the zoo's two CNNs, up to the activation, and a ResNet-18 with a 3x3 stem.
    """
    told = _infer_cnn(list(shapes.values()))
    return told or _infer_resnet18(fitting(shapes, lambda names: "conv1.weight" in names))


def _infer_cnn(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    for sizes, side in _LAST_SIDE:
        for classes in {shape[0] for shape in shapes if len(shape) == 1}:
            module: Any = registry.build("cnn", {**sizes, "num_classes": classes})
            inputs, _ = open_sizes(shapes, module)
            kernels = torch_kernels(module, inputs or 0, module.channels[-1] * side**2)
            if Counter(shapes) == Counter([*kernels, *((kernel[0],) for kernel in kernels)]):
                return "cnn", {**sizes, "num_classes": classes}
    return None


def _infer_resnet18(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
    heads = [n for n in ("linear", "fc") if len(shapes.get(f"{n}.weight", ())) == 2]
    stem = shapes.get("conv1.weight", ())
    blocks = {tuple(n.split(".")[:2]) for n in shapes if n.startswith("layer")}
    deep = {(f"layer{i}", str(j)) for i in range(1, 5) for j in range(2)}
    bottleneck = "layer1.0.conv3.weight" in shapes
    if len(heads) != 1 or stem[2:] != (3, 3) or blocks != deep or bottleneck:
        return None
    return "resnet18", {
        "width": stem[0],
        "num_classes": shapes[f"{heads[0]}.weight"][0],
        "names": "cifar" if heads[0] == "linear" else "torchvision",
    }


def _image(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Side and channels of images that lead to these shapes, as far as they tell."""
    if isinstance(module, CNN):
        channels, flat = open_sizes(shapes.values(), module)
        return None if channels is None else (_side(module, flat or 0), channels)
    names = list(module.state_dict_names())
    shapes = fitting(shapes, set(names).issubset)
    if isinstance(module, MLP):
        flat = shapes.get(names[0], (1,))[-1]
        squares = ((math.isqrt(flat // channels), channels) for channels in (1, 3))
        return next((s for s in squares if s[0] ** 2 * s[1] == flat), (1, flat))
    # The network's own order, as a file may have any: the first convolution is that of images.
    first = next((shapes[name] for name in names if len(shapes.get(name, ())) == 4), None)
    if first is None:
        return None
    positions = shapes.get("pos_embed", shapes.get("positional_embedding"))
    if positions is not None and len(positions) > 1:
        return math.isqrt(max(positions[-2] - 1, 1)) * first[-1], first[1]
    return 32, first[1]


def _side(cnn: CNN, flat: int) -> int:
    """The least side of images that gives the first linear layer its inputs.

    Several do, as pooling drops odd rows; the layout is the same for all of them.
    """
    for side in range(1, 513):
        with contextlib.suppress(UserError):  # too small for the kernels
            if cnn.flat_size(side, side) == flat:
                return side
    return 32
