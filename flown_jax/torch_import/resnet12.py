"""Meta-Baseline's ResNet-12 state dicts as variables of `models.resnet12.ResNet12`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError

_PREFIX = "encoder."
_CLASSIFIER = "classifier.linear."
# Counters, and the temperature of the cosine head: no part of the backbone.
_IGNORED = ("num_batches_tracked", "temp")


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params", "batch_stats"} that compute what the PyTorch backbone computes.

    Args:
      state_dict: names `layer1.conv1.weight` ..., with or without the prefix `encoder.`;
        `classifier.linear.*` becomes the classifier where it is there.
      config: channels (the widths of the blocks), and in_channels, 3 unless given.
    Raises:
      UserError: missing, unused or mis-shaped entries, by name.
    """
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in state_dict.items()
        if name.split(".")[-1] not in _IGNORED
    }
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    channels_in = config.get("in_channels", 3)
    for i, width in enumerate(config["channels"], start=1):
        prefix = f"layer{i}"
        layer_params: dict[str, Any] = {}
        layer_stats: dict[str, Any] = {}
        inputs = channels_in
        for j in (1, 2, 3):
            shape = (width, inputs, 3, 3)
            layer_params[f"conv{j}"] = _conv(state, f"{prefix}.conv{j}", shape)
            layer_params[f"bn{j}"], layer_stats[f"bn{j}"] = _norm(state, f"{prefix}.bn{j}", width)
            inputs = width
        shortcut = f"{prefix}.downsample"
        layer_params["shortcut_conv"] = _conv(state, f"{shortcut}.0", (width, channels_in, 1, 1))
        layer_params["shortcut_bn"], layer_stats["shortcut_bn"] = _norm(
            state, f"{shortcut}.1", width
        )
        params[prefix], stats[prefix] = layer_params, layer_stats
        channels_in = width
    if f"{_CLASSIFIER}weight" in state:
        classes = np.shape(state[f"{_CLASSIFIER}weight"])[0]
        params["classifier"] = {
            "kernel": _take(state, f"{_CLASSIFIER}weight", (classes, channels_in)).T,
            "bias": _take(state, f"{_CLASSIFIER}bias", (classes,)),
        }
    if state:
        raise UserError(f"A ResNet-12 of this config has no entry {', '.join(sorted(state))}.")
    return {"params": params, "batch_stats": stats}


def _conv(state: dict[str, Any], name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"kernel": _take(state, f"{name}.weight", shape).transpose(2, 3, 1, 0)}


def _norm(state: dict[str, Any], name: str, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    params = {
        "scale": _take(state, f"{name}.weight", (width,)),
        "bias": _take(state, f"{name}.bias", (width,)),
    }
    stats = {
        "mean": _take(state, f"{name}.running_mean", (width,)),
        "var": _take(state, f"{name}.running_var", (width,)),
    }
    return params, stats


def _take(state: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Removes and returns an entry of the wanted shape."""
    if name not in state:
        raise UserError(f"The ResNet-12 state dict has no entry {name!r}.")
    value = np.asarray(state.pop(name), dtype=np.float32)
    if value.shape != shape:
        raise UserError(f"{name} has shape {value.shape}, where this config needs {shape}.")
    return value
