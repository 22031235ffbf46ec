"""Base models by name: what a stored spec of weights needs to rebuild its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN
from flown_jax.models.convnext import ConvNeXt
from flown_jax.models.mlp import MLP
from flown_jax.models.resnet import ResNet18
from flown_jax.models.resnet12 import ResNet12
from flown_jax.models.vit import VisionTransformer

MODELS: dict[str, type[nn.Module]] = {
    "cnn": CNN,
    "resnet18": ResNet18,
    "resnet12": ResNet12,
    "vit": VisionTransformer,
    "convnext": ConvNeXt,
    "mlp": MLP,
}
# Linen's own fields, and the precision, which is no part of the function.
_OTHER_FIELDS = ("parent", "name", "dtype")


def build(name: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The network of this name and these sizes; sizes not given are the published ones.

    Args:
      name: cnn, resnet18, resnet12, vit, convnext or mlp.
      sizes: its fields; lists become tuples.
    Raises:
      UserError: an unknown model or field, or a value of another type.
    """
    if name not in MODELS:
        raise UserError(f"model {name!r} is unknown; it is one of {', '.join(MODELS)}.")
    defaults = _defaults(MODELS[name])
    unknown = [field for field in sizes if field not in defaults]
    if unknown:
        raise UserError(
            f"the model {name} has no field {unknown[0]!r}; it has {', '.join(defaults)}."
        )
    fields = {
        field: _typed(value, defaults[field], f"{field} of the model {name}")
        for field, value in sizes.items()
    }
    return MODELS[name](**fields)


def describe(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Name and sizes of a network, JSON values: the inverse of `build`.

    All fields are given but the precision.

    Raises:
      UserError: the module is none of the base models.
    """
    for name, kind in MODELS.items():
        if type(module) is kind:
            values = {
                field: _typed(getattr(module, field), default, f"{field} of the model {name}")
                for field, default in _defaults(kind).items()
            }
            return name, {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    raise UserError(f"{type(module).__name__} is none of the base models, {', '.join(MODELS)}.")


def _defaults(kind: type[nn.Module]) -> dict[str, Any]:
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name not in _OTHER_FIELDS}


def _typed(value: Any, default: Any, what: str) -> Any:
    """The value in the type of the default, so that equal networks have equal descriptions."""
    value = value.item() if isinstance(value, np.generic) else value
    if default is None and value is None:
        return None
    kind = int if default is None else type(default)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_typed(item, default[0], what) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        expected = "a list" if kind is tuple else f"of type {kind.__name__}"
        raise UserError(f"{what} must be {expected}, not {value!r}.")
    return value
