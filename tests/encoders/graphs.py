"""Tiny encoders of graphs, networks for them, and how close is close."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from flown_jax.encoders.graph_encoder import GraphEncoder
from flown_jax.weights.graphs import Topology, chain
from tests.layers.helpers import quick_jit

SIZES: dict[str, Any] = {
    "node_dim": 8,
    "edge_dim": 4,
    "attention_dim": 8,
    "num_heads": 2,
    "num_layers": 2,
    "node_hidden": 12,
    "edge_hidden": 6,
    "frequencies": 4,
    "head_dims": (8,),
}
BACKBONES = ("transformer", "pna")
# Perceptrons of 3 inputs and 2 outputs.
SMALL = chain([(4, 3), (2, 4)])
DEEP = chain([(5, 3), (1, 5), (4, 1), (2, 4)])


def encoder(topology: Topology, d_out: int | None = 6, **more: Any) -> GraphEncoder:
    """A tiny encoder of networks of a topology."""
    return GraphEncoder(topology, d_out, **(SIZES | more))


def networks(topology: Topology, count: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """(N, D) random weights."""
    random = np.random.default_rng(seed)
    return (scale * random.normal(size=(count, topology.size))).astype(np.float32)


def initial(module: Any, w: Any) -> Any:
    """Variables like a module's own, drawn without compiling its initialisation."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.numpy.asarray(w[:1]))
    random = np.random.default_rng(1)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind, name = path[0].key, path[-1].key
        values = random.normal(size=leaf.shape)
        if kind == "constants" and name != "frequencies":
            ones = name in ("node_scale", "edge_scale", "std", "scale")
            values = np.full(leaf.shape, 1.0 if ones else 0.0)
        elif name == "kernel":
            values /= np.sqrt(leaf.shape[0])
        elif name in ("bias", "scale"):
            values = 0.3 * values + (name == "scale")
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(module: Any, variables: Any, x: Any, **more: Any) -> np.ndarray:
    """Outputs, compiled."""
    return quick_jit(lambda v, x: module.apply(v, x, **more))(variables, x)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Trees are equal, up to `tolerance` times the largest value of all."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert (gap := distance(found, expected)) <= tolerance, f"relative error {gap:.1e}"


def distance(found: Any, expected: Any) -> float:
    """The largest difference of two trees, by the largest value of the second."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    largest = max(float(np.abs(b).max(initial=0.0)) for _, b in pairs)
    assert np.isfinite(largest)
    for a, b in pairs:
        assert np.shape(a) == np.shape(b)
    gap = max(float(np.abs(np.subtract(a, b)).max(initial=0.0)) for a, b in pairs)
    return gap / largest if largest else gap


def assert_finite(tree: Any) -> None:
    """No value of a tree is infinite or none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
