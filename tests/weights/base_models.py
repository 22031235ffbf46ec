"""A small network of every base model and form, with random variables and images."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from flown_jax.models import (
    CNN,
    MLP,
    ConvNeXt,
    ResNet12,
    ResNet18,
    VisionTransformer,
)
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import random_variables

_VIT: dict[str, Any] = {"patch_size": 4, "embed_dim": 6, "depth": 2, "num_heads": 3}
_CNN: dict[str, Any] = {"channels": (3, 4), "kernels": (3, 2), "pools": (True, False)}
MODELS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "cnn": (CNN(**_CNN, hidden=(5, 4), num_classes=3), (8, 8, 1)),
    "cnn_of_wide_maps": (CNN(**_CNN, hidden=(), num_classes=2, activation="gelu"), (8, 14, 2)),
    "mlp": (MLP((4, 5), num_classes=3), (3, 2, 2)),
    "resnet18": (ResNet18(width=2, num_classes=3), (8, 8, 3)),
    "resnet12": (ResNet12((2, 3), num_classes=3), (8, 8, 3)),
    "resnet12_features": (ResNet12((2, 3)), (8, 8, 3)),
    "vit": (VisionTransformer(**_VIT, num_classes=4), (8, 8, 3)),
    "clip": (
        VisionTransformer(**_VIT, num_classes=4, form="clip", activation="quick_gelu"),
        (8, 8, 3),
    ),
    "convnext": (ConvNeXt(depths=(1, 2), dims=(3, 4), num_classes=3), (8, 8, 3)),
}


@functools.cache
def random(name: str) -> tuple[Any, dict[str, Any], np.ndarray]:
    """The module, random variables of it, variances positive, and two images."""
    module, image = MODELS[name]
    images = np.random.default_rng(1).normal(size=(2, *image)).astype(np.float32)
    variables = random_variables(module, images[:1])
    _positive(variables.get("batch_stats", {}))
    return module, variables, images


def spec(name: str, collections: tuple[str, ...] | None = None) -> WeightSpec:
    """The spec of all variables, or of some."""
    module, variables, _ = random(name)
    return WeightSpec.from_module(
        module, variables, collections=collections or tuple(variables), inputs={"model": name}
    )


def _positive(tree: dict[str, Any]) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _positive(value)
        elif name == "var":
            tree[name] = 0.5 + np.abs(value)
