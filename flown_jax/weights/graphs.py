"""A network as a graph: nodes are units, edges are kernels, and back without loss.

A `Topology` says which weight of a vector each feature of the graph is. It is made once for a
`WeightSpec`, with NumPy; after that a graph is one gather of the vector, and the vector one gather
of the graph, under jit and vmap.

    found = topology(spec)
    graph = found.graph(w)          # jraph.GraphsTuple
    w = found.from_graph(graph)     # bit by bit the same

A linear layer behind flattened maps (F positions of C channels) is one of
- `as_conv`: a convolution whose kernel is the whole map. Every weight is in the graph once.
- `repeat_nodes`: the units before it are repeated for each position. In the order "corrected" a
  repeated unit is connected with the weights that PyTorch multiplies it with; "published" leaves
  these weights in their own order, so that permuting the last convolution's channels is no symmetry
  of the graph. It is there to compare with published numbers.
Sources: Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of Neural
Networks, 2024; FLoWN A.2.2 and table 7.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.weights import base_wirings
from flown_jax.weights.chains import Layer, Options, wire
from flown_jax.weights.graph_tables import Group, tables
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.wiring import Wiring, places

if TYPE_CHECKING:
    import jraph

__all__ = ["Group", "Topology", "chain", "counts", "pairs", "topology"]


@dataclass(frozen=True, eq=False)
class Topology:
    """Which weight is which feature of a graph of n nodes and E edges; NumPy arrays.

    Attributes:
      size: D, length of a weight vector.
      node_source: (n, F) int32, the entry of [0, 1, *w] that each node feature is; feature 0 is
        the bias, others are what else a unit has (running statistics, position embeddings).
      edge_source: (E, K^2) int32, the same for edges: kernels in the middle of K x K, row by row.
      senders, receivers: (E,) int32, from the unit before to the unit after, sorted by both.
      linear: (E,) bool, weights of linear layers that stand alone in feature 0.
      role: (n,) int8, 0 input, 1 hidden, 2 output.
      index: (n,) int32, number of the input, of the hidden group, of the output, by role.
      spatial: (n,) int32, position of a repeated node, -1 elsewhere.
      activation: (n,) int32, 0 to 6 of none, relu, gelu, silu, tanh, sigmoid, leaky_relu on hidden
        nodes, -1 where it is not known.
      places: (D,) int64, where in the node features and then the edge features, both flattened,
        each weight lies first.
      groups: the layers' nodes.
      tied: groups, by number, whose units belong together one by one (what a normalisation or a
        sum connects) and must be permuted alike.
    """

    size: int
    node_source: np.ndarray
    edge_source: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    linear: np.ndarray
    role: np.ndarray
    index: np.ndarray
    spatial: np.ndarray
    activation: np.ndarray
    places: np.ndarray
    groups: tuple[Group, ...]
    tied: tuple[tuple[int, ...], ...]

    def features(self, w: Array) -> tuple[Array, Array]:
        """Node features (..., n, F) and edge features (..., E, K^2) of vectors (..., D).

        Raises:
          UserError: vectors of another length.
        """
        w = jnp.asarray(w)
        if w.ndim < 1 or w.shape[-1] != self.size:
            raise UserError(
                f"a vector of this network has {self.size} values, not shape {w.shape}."
            )
        constants = jnp.broadcast_to(jnp.arange(2, dtype=w.dtype), (*w.shape[:-1], 2))
        entries = jnp.concatenate([constants, w], axis=-1)
        return _gather(entries, self.node_source), _gather(entries, self.edge_source)

    def weights(self, nodes: Array, edges: Array) -> Array:
        """Vectors (..., D) of features, the inverse of `features`.

        Of a weight with several copies the first is read.

        Raises:
          UserError: features of another graph.
        """
        for what, array, source in (
            ("node", nodes, self.node_source),
            ("edge", edges, self.edge_source),
        ):
            if array.shape[-2:] != source.shape:
                raise UserError(
                    f"the {what} features of this network are {source.shape}, not "
                    f"{tuple(array.shape)}."
                )
        flat = [a.reshape(*a.shape[:-2], -1) for a in (nodes, edges)]
        return _gather(jnp.concatenate(flat, axis=-1), self.places.astype(np.int32))

    def graph(self, w: Array) -> jraph.GraphsTuple:
        """The graph of one vector (D,).

        Nodes have `features`, `role`, `index`, `spatial` and `activation`, edges `features` and
        `linear`; globals are None.
        """
        import jraph

        nodes, edges = self.features(w)
        named = ("role", "index", "spatial", "activation")
        return jraph.GraphsTuple(
            nodes={"features": nodes} | {name: jnp.asarray(getattr(self, name)) for name in named},
            edges={"features": edges, "linear": jnp.asarray(self.linear)},
            senders=jnp.asarray(self.senders),
            receivers=jnp.asarray(self.receivers),
            globals=None,
            n_node=jnp.asarray([len(self.role)], jnp.int32),
            n_edge=jnp.asarray([len(self.senders)], jnp.int32),
        )

    def from_graph(self, graph: jraph.GraphsTuple) -> Array:
        """The vector (D,) of a graph, padded or the first of a batch.

        Raises:
          UserError: the graph of another network.
        """
        nodes = graph.nodes["features"][: len(self.role)]
        return self.weights(nodes, graph.edges["features"][: len(self.senders)])


def _gather(entries: Array, places: np.ndarray) -> Array:
    return jnp.take(entries, jnp.asarray(places), axis=-1, mode="clip")


@functools.lru_cache(maxsize=16)
def topology(
    spec: WeightSpec,
    *,
    flattening: str | None = "as_conv",
    order: str = "corrected",
    kernel: int | None = None,
    linear_as_conv: bool = True,
) -> Topology:
    """The graph of the networks of a spec: a base model, or a chain of layers.

    Of a part of a network the graph has the units that the part's tensors touch. The tensors of a
    module that is not registered are read as a chain, one layer after the other: what branches of
    equal widths add up is not in the graph.

    Args:
      spec: what a vector means.
      flattening: of maps before a linear layer, `as_conv`, `repeat_nodes` or None, which needs maps
        of one position.
      order: of repeated nodes, `corrected` or `published`.
      kernel: K; None takes the largest side of the network's kernels.
      linear_as_conv: put a linear layer's weight in the middle of K x K; otherwise in feature 0.
    Raises:
      UserError: layers that a graph cannot hold, named; unknown options.
    """
    wiring = Wiring()
    base_wirings.wire_spec(wiring, spec, Options(flattening, order))
    found = Topology(**tables(wiring, spec.size, kernel, linear_as_conv))
    if (lost := found.places < 0).any():
        at = int(np.argmax(lost))
        name = next(name for name, part in spec.slices.items() if part.stop > at)
        raise UserError(f"the tensor {name} has no place in the graph of a {spec.model}.")
    return found


def chain(
    shapes: Sequence[Sequence[int]],
    *,
    flattening: str | None = None,
    order: str = "corrected",
    kernel: int | None = None,
    linear_as_conv: bool = True,
    residual: Sequence[int] = (),
    activations: Sequence[str] = (),
) -> Topology:
    """The graph of a chain of layers with biases, known by shapes alone.

    A vector is each layer's weight and bias, layer after layer.

    Args:
      shapes: of the weights, (out, in, kh, kw) or (out, in).
      flattening, order, kernel, linear_as_conv: as of `topology`. The published order also adds
        what a residual connection between unequal widths has, its first channels, to the first
        position of repeated nodes alone.
      residual: for each hidden layer, the hidden layer that is added to it, or -1; () for none.
      activations: of each hidden layer; () where they are not known.
    Raises:
      UserError: layers that do not fit, by number; unknown options.
    """
    return _chain(
        tuple(tuple(shape) for shape in shapes),
        Options(flattening, order, tuple(residual), tuple(activations)),
        kernel,
        linear_as_conv,
    )


@functools.lru_cache(maxsize=16)
def _chain(
    shapes: tuple[tuple[int, ...], ...],
    options: Options,
    kernel: int | None,
    linear_as_conv: bool,
) -> Topology:
    wiring, layers, at = Wiring(), [], 0
    for number, shape in enumerate(shapes):
        weight = places(at, shape)
        bias = places(at + weight.size, shape[:1])
        layers.append(Layer(str(number), weight, (bias,)))
        at += weight.size + bias.size
    wire(wiring, layers, options)
    return Topology(**tables(wiring, at, kernel, linear_as_conv))


def pairs(topology: Topology) -> int:
    """Pairs of nodes that sparse attention works on: edges both ways and each node, 2E + n."""
    return 2 * len(topology.senders) + len(topology.role)


def counts(topology: Topology) -> dict[str, int]:
    """What encoding a network costs grows with these: its weights, nodes, edges, `pairs`, and the
    pairs of dense attention, n^2.
    """
    nodes = len(topology.role)
    return {
        "weights": topology.size,
        "nodes": nodes,
        "edges": len(topology.senders),
        "pairs": pairs(topology),
        "dense_pairs": nodes**2,
    }
