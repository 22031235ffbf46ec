"""Base models as groups of nodes and edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flown_jax.weights import chains
from flown_jax.weights.chains import Layer, Options
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.wiring import Wiring, places


def wire_spec(wiring: Wiring, spec: WeightSpec, options: Options) -> None:
    """Add the network of a spec to the wiring.

    Raises:
      UserError: layers that a graph cannot hold, named.
    """
    _WIRINGS[spec.model](wiring, spec, options)


class _Tensors:
    """Tensors of a spec as places in [0, 1, *w], by linen's layers."""

    def __init__(self, spec: WeightSpec):
        self.module: Any = spec.module()
        self._found = {e.path: places(spec.slices[e.name].start, e.shape) for e in spec.entries}
        self._names = {path: name for name, path in self.module.state_dict_names().items()}

    def get(self, path: str) -> np.ndarray | None:
        """The tensor of this path without its collection, None where the spec lacks it."""
        return self._found.get(f"params/{path}")

    def name(self, path: str) -> str:
        """PyTorch's name of the layer of a tensor."""
        return self._names[f"params/{path}"].rpartition(".")[0]


def _cnn(wiring: Wiring, spec: WeightSpec, options: Options) -> None:
    tensors = _Tensors(spec)
    module = tensors.module
    hidden = len(module.channels) + len(module.hidden)
    names = [f"conv_{i}" for i in range(len(module.channels))]
    names += [f"dense_{i}" for i in range(len(module.hidden) + 1)]
    layers = []
    for name in names:
        weight = tensors.get(f"{name}/kernel")
        assert weight is not None
        layers.append(Layer(tensors.name(f"{name}/kernel"), weight, (tensors.get(f"{name}/bias"),)))
    options = Options(options.flattening, options.order, (), (module.activation,) * hidden)
    chains.wire(wiring, layers, options)


_WIRINGS: dict[str | None, Callable[[Wiring, WeightSpec, Options], None]] = {"cnn": _cnn}
