"""Base models as groups of nodes and of edges, and modules that are not registered as chains.

A normalisation y = m x + b is a group of units x, which keep the bias of their layer, and one of
units y with bias b, and an edge m from each x to its y; running statistics are further features of
y. What a network adds up stands on the units of the last summand: edges of value 1 lead there from
the others. A unit of a fused attention projection is one channel of q and k together (two
features, laid out from the first one on), or of v; edges of value 1 say which v a head mixes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.weights import chains
from flown_jax.weights.chains import Layer, Options
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.wiring import Wiring, places

_LEAF = re.compile(r"[._](weight|bias)$")


def wire_spec(wiring: Wiring, spec: WeightSpec, options: Options) -> None:
    """Add the network of a spec to the wiring.

    Raises:
      UserError: layers that a graph cannot hold, named.
    """
    if spec.model is None:
        chains.wire(wiring, _layers_in_order(spec), options)
    elif spec.model not in _WIRINGS:
        raise UserError(f"networks of the model {spec.model} are not known to graphs.")
    else:
        _WIRINGS[spec.model](_Network(wiring, spec), options)


class _Network:
    """A registered network's tensors by linen's layers, and what layers most networks share.

    Every method that adds units returns their number.
    """

    def __init__(self, wiring: Wiring, spec: WeightSpec):
        self.wiring = wiring
        self.module: Any = spec.module()
        self._found = {e.path: places(spec.slices[e.name].start, e.shape) for e in spec.entries}
        self._names = {path: name for name, path in self.module.state_dict_names().items()}

    def get(self, path: str, collection: str = "params") -> np.ndarray | None:
        """The places of a tensor, PyTorch's shape; None where the spec lacks it."""
        return self._found.get(f"{collection}/{path}")

    def has(self, layer: str) -> bool:
        """Whether the whole network has this layer."""
        return f"params/{layer}/kernel" in self._names

    def name(self, path: str) -> str:
        """PyTorch's name of a tensor, without ".weight" or ".bias"."""
        return _LEAF.sub("", self._names[f"params/{path}"])

    def inputs(self, layer: str) -> int:
        """The inputs of the first layer; their number is in its kernel alone."""
        kernel = self.get(f"{layer}/kernel")
        return self.wiring.nodes("input", 1 if kernel is None else kernel.shape[1], role="input")

    def layer(self, source: int, layer: str, units: int, activation: str = "none", **kind) -> int:
        """A convolution or a linear layer."""
        path = f"{layer}/kernel"
        group = self.wiring.nodes(
            self.name(path), units, self.get(f"{layer}/bias"), activation=activation, **kind
        )
        self.wiring.dense(self.name(path), source, group, self.get(path))
        return group

    def norm(self, source: int, layer: str, activation: str = "none", **kind) -> int:
        """A normalisation."""
        name = self.name(f"{layer}/scale")
        stats = (self.get(f"{layer}/{what}", "batch_stats") for what in ("mean", "var"))
        group = self.wiring.nodes(
            name,
            self.wiring.units(source),
            self.get(f"{layer}/bias"),
            *stats,
            activation=activation,
            **kind,
        )
        self.wiring.diagonal(name, source, group, self.get(f"{layer}/scale"))
        return group

    def conv_norm(
        self, source: int, conv: str, norm: str, units: int, activation: str = "none", **kind
    ) -> int:
        """A convolution and its normalisation."""
        return self.norm(self.layer(source, conv, units), norm, activation, **kind)

    def add(self, source: int, target: int) -> int:
        """The sum of both, on the target."""
        self.wiring.identity("a residual connection", source, target)
        return target


def _cnn(network: _Network, options: Options) -> None:
    module = network.module
    # Of a part, layers are known whose inputs are not; nothing depends on them there.
    shapes = module.kernel_shapes(1, module.channels[-1])
    _chain(network, {layer: (shape[-1], shape[-2]) for layer, shape in shapes.items()}, options)


def _mlp(network: _Network, options: Options) -> None:
    widths = (1, *network.module.hidden, network.module.num_classes)
    shapes = {f"dense_{i}": (widths[i + 1], widths[i]) for i in range(len(widths) - 1)}
    _chain(network, shapes, options)


def _chain(network: _Network, shapes: dict[str, tuple[int, int]], options: Options) -> None:
    layers = []
    for layer, (outputs, inputs) in shapes.items():
        weight = network.get(f"{layer}/kernel")
        absent = np.zeros((outputs, inputs, *((1, 1) if layer.startswith("conv") else ())), int)
        layers.append(
            Layer(
                network.name(f"{layer}/kernel"),
                absent if weight is None else weight,
                (network.get(f"{layer}/bias"),),
                present=weight is not None,
            )
        )
    activations = (network.module.activation,) * (len(layers) - 1)
    options = Options(options.flattening, options.order, (), activations)
    chains.wire(network.wiring, layers, options)


def _resnet18(network: _Network, options: Options) -> None:
    del options
    x = network.conv_norm(network.inputs("conv1"), "conv1", "bn1", network.module.width, "relu")
    for stage in range(4):
        width = network.module.width * 2**stage
        for block in (0, 1):
            name = f"layer{stage + 1}_{block}"
            shortcut = x
            h = network.conv_norm(x, f"{name}/conv1", f"{name}/bn1", width, "relu")
            if network.has(f"{name}/shortcut_conv"):
                shortcut = network.conv_norm(
                    x, f"{name}/shortcut_conv", f"{name}/shortcut_bn", width
                )
            h = network.conv_norm(h, f"{name}/conv2", f"{name}/bn2", width, "relu")
            x = network.add(shortcut, h)
    network.layer(x, "linear", network.module.num_classes, role="output")


def _resnet12(network: _Network, options: Options) -> None:
    del options
    module = network.module
    x = network.inputs("layer1/conv1")
    for i, width in enumerate(module.channels, start=1):
        name = f"layer{i}"
        # Without a classifier the last block's features are the outputs.
        last = module.num_classes is None and i == len(module.channels)
        h = network.conv_norm(x, f"{name}/conv1", f"{name}/bn1", width, "leaky_relu")
        h = network.conv_norm(h, f"{name}/conv2", f"{name}/bn2", width, "leaky_relu")
        shortcut = network.conv_norm(x, f"{name}/shortcut_conv", f"{name}/shortcut_bn", width)
        h = network.conv_norm(
            h,
            f"{name}/conv3",
            f"{name}/bn3",
            width,
            "leaky_relu",
            role="output" if last else "hidden",
        )
        x = network.add(shortcut, h)
    if module.num_classes is not None:
        network.layer(x, "classifier", module.num_classes, role="output")


def _convnext(network: _Network, options: Options) -> None:
    del options
    module, wiring = network.module, network.wiring
    x = network.layer(network.inputs("stem_conv"), "stem_conv", module.dims[0])
    x = network.norm(x, "stem_norm")
    for s, (depth, width) in enumerate(zip(module.depths, module.dims, strict=True)):
        if s:
            h = network.norm(x, f"downsample_{s}_norm")
            x = network.layer(h, f"downsample_{s}_conv", width)
        for b in range(depth):
            block = f"stage_{s}_block_{b}"
            kernel, name = network.get(f"{block}/conv_dw/kernel"), network.name(f"{block}/gamma")
            depthwise = network.name(f"{block}/conv_dw/kernel")
            bias = network.get(f"{block}/conv_dw/bias")
            h = wiring.nodes(depthwise, width, bias, activation="none")
            wiring.diagonal(depthwise, x, h, None if kernel is None else kernel[:, 0])
            h = network.norm(h, f"{block}/norm")
            h = network.layer(h, f"{block}/fc1", 4 * width, "gelu")
            h = network.layer(h, f"{block}/fc2", width)
            scaled = wiring.nodes(name, width, activation="none")
            wiring.diagonal(name, h, scaled, network.get(f"{block}/gamma"))
            x = network.add(x, scaled)
    network.layer(network.norm(x, "head_norm"), "head", module.num_classes, role="output")


def _vit(network: _Network, options: Options) -> None:
    del options
    module, wiring = network.module, network.wiring
    width, clip = module.embed_dim, module.form == "clip"
    token = network.get("class_embedding" if clip else "cls_token")
    positions = network.get("positional_embedding" if clip else "pos_embed")
    inputs, name = network.inputs("patch_embed"), network.name("patch_embed/kernel")
    x = wiring.nodes(
        name,
        width,
        network.get("patch_embed/bias"),
        None if token is None else token.reshape(width),
        None if positions is None else positions.reshape(-1, width).T,
        activation="none",
    )
    wiring.dense(name, inputs, x, network.get("patch_embed/kernel"))
    if clip:
        x = network.norm(x, "norm_pre")
    for i in range(module.depth):
        block = f"blocks_{i}"
        h = _attended(network, network.norm(x, f"{block}/norm1"), f"{block}/qkv")
        x = network.add(x, network.layer(h, f"{block}/proj", width))
        h = network.norm(x, f"{block}/norm2")
        h = network.layer(h, f"{block}/fc1", module.mlp_ratio * width, module.activation)
        x = network.add(x, network.layer(h, f"{block}/fc2", width))
    x = network.norm(x, "norm")
    if clip:
        head, name = network.get("proj"), network.name("proj")
        outputs = wiring.nodes(name, module.num_classes, role="output")
        wiring.dense(name, x, outputs, None if head is None else head.T)
    else:
        network.layer(x, "head", module.num_classes, role="output")


def _attended(network: _Network, source: int, layer: str) -> int:
    """The heads' values, after their queries and keys."""
    module, wiring = network.module, network.wiring
    width, name = module.embed_dim, network.name(f"{layer}/kernel")
    kernel, bias = network.get(f"{layer}/kernel"), network.get(f"{layer}/bias")
    qk_bias = v_bias = qk_kernel = v_kernel = None
    if bias is not None:
        *qk, v_bias = bias.reshape(3, width)
        qk_bias = np.stack(qk, -1)
    if kernel is not None:
        *qk, v_kernel = kernel.reshape(3, width, width)
        qk_kernel = np.stack(qk, -1)
    heads: dict[str, Any] = {"activation": "none", "blocks": module.num_heads}
    scores = wiring.nodes(f"{name}.qk", width, qk_bias, **heads)
    values = wiring.nodes(f"{name}.v", width, v_bias, **heads)
    wiring.dense(name, source, scores, qk_kernel)
    wiring.dense(name, source, values, v_kernel)
    units = np.arange(width).reshape(module.num_heads, -1)
    size = units.shape[1]
    senders = np.repeat(units, size, axis=1).reshape(-1)
    wiring.constant(name, scores, values, senders, np.tile(units, (1, size)).reshape(-1))
    return values


_WIRINGS: dict[str, Callable[[_Network, Options], None]] = {
    "cnn": _cnn,
    "mlp": _mlp,
    "resnet18": _resnet18,
    "resnet12": _resnet12,
    "vit": _vit,
    "convnext": _convnext,
}

_FEATURES = ("bias", "running_mean", "running_var")


def _layers_in_order(spec: WeightSpec) -> list[Layer]:
    """The layers of a module that is not registered, as its tensors follow one another."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for entry in spec.entries:
        layer, _, leaf = entry.name.rpartition(".")
        found.setdefault(layer, {})[leaf] = places(spec.slices[entry.name].start, entry.shape)
    layers = []
    for layer, tensors in found.items():
        at = f"{layer}." if layer else ""
        features = tuple(tensors.pop(leaf, None) for leaf in _FEATURES)
        weight = tensors.pop("weight", None)
        if tensors or weight is None:
            odd = next(iter(tensors), "weight")
            what = "is no tensor of a layer" if tensors else "is absent"
            raise UserError(f"{at}{odd} {what}: graphs know layers of weight and bias alone.")
        if weight.ndim not in (1, 2, 4) or not math.prod(weight.shape):
            raise UserError(
                f"{at}weight has shape {weight.shape}: graphs know convolutions of four axes, "
                "linear layers of two and normalisations of one."
            )
        layers.append(Layer(layer or "layer", weight, features))
    return layers
