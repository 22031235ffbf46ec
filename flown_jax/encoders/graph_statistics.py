"""Statistics of training networks by which a graph encoder standardises, fixed before training."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.encoders.graph_inputs import INPUT, OUTPUT

RANK = 64  # most networks that statistics are taken of
_RIDGE = 1e-3  # of the largest variance: what is smaller is taken for noise
_STILL = 1e-7  # standard deviation below which a feature is a constant


def layer_scales(topology: Any, w: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares of each layer's weights: of nodes (depth + 1, F) and edges (depth + 1,).

    Hidden layers come one after another, the outputs last; 1 where all weights are 0, or none are.
    There is no mean to subtract: a zero stays a zero, the same as no edge.

    Args:
      topology: see `weights.graphs`. w: (N, D). depth: hidden layers.
    """
    squares = np.concatenate([np.zeros(2), np.mean(np.asarray(w, np.float64) ** 2, 0)])
    level = np.where(topology.role == OUTPUT, depth, topology.index)

    def squared(source: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # 0 and 1 in a source are constants, not weights.
        own, shape = source >= 2, (depth + 1, source.shape[1])
        total, count = np.zeros(shape), np.zeros(shape)
        np.add.at(total, of, np.where(own, squares[source], 0.0))
        np.add.at(count, of, own)
        return total, count

    inner = topology.role != INPUT
    total, count = squared(topology.node_source[inner], level[inner])
    edges = [part.sum(1) for part in squared(topology.edge_source, level[topology.receivers])]
    found = [np.sqrt(t / np.maximum(n, 1)) for t, n in ((total, count), edges)]
    nodes, weights = (np.where(part > 0, part, 1.0).astype(np.float32) for part in found)
    return nodes, weights


def neutral(width: int) -> dict[str, np.ndarray]:
    """The whitening that changes nothing, of `width` features."""
    return {
        "mean": np.zeros(width, np.float32),
        "std": np.ones(width, np.float32),
        "directions": np.zeros((width, RANK), np.float32),
        "shares": np.zeros(RANK, np.float32),
    }


def whitening(features: Any) -> dict[str, np.ndarray]:
    """What `whitened` needs, of features (N, width) of N <= RANK networks.

    At the start an encoder tells networks apart by a hundredth of what it says, mostly along one
    direction. After this every direction in which training networks differ counts alike, down to
    a thousandth of the largest variance.
    """
    features = np.asarray(features, np.float64)
    found = neutral(features.shape[1])
    std = features.std(0)
    std = np.where(std > _STILL, std, 1.0)
    centred = (features - features.mean(0)) / std
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2 / len(features)
    ridge = _RIDGE * max(variance[0], _STILL)
    shares = 1 - np.sqrt(ridge / (variance + ridge))
    flat = centred - (centred @ directions.T * shares) @ directions
    # Of unit mean square over the training networks.
    size = np.sqrt(np.mean(flat**2)) or 1.0
    found["mean"], found["std"] = features.mean(0), std * size
    found["directions"][:, : len(directions)] = directions.T
    found["shares"][: len(shares)] = shares
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def whitened(features: Array, of: dict[str, Any]) -> Array:
    """Features (B, width) with the variances of `whitening` taken out."""
    h = (features - of["mean"]) / of["std"]
    directions = jnp.asarray(of["directions"])
    return h - (h @ directions * of["shares"]) @ directions.T
