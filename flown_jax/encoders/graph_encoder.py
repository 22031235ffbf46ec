"""Networks, as vectors of weights or as graphs, to a vector each that no order of units changes.

Features of nodes and edges, a backbone on the graph (a relational transformer or PNA), the output
nodes one after another, and an MLP (paper, A.2.2 and Table 7; Kofinas et al., Graph Neural Networks
for Learning Equivariant Representations of Neural Networks, 2024).

    encoder = GraphEncoder(topology(spec), d_out=512)
    variables = encoder.init(key, w[:1])          # w (N, D)
    variables = encoder.fit(variables, w)         # statistics, fixed from here on
    y = encoder.apply(variables, w)               # (N, 512)
    y = encoder.apply(variables, graphs)          # of a jraph.GraphsTuple of any networks
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.encoders.graph_inputs import HIDDEN, INPUT, OUTPUT, GraphInputs
from flown_jax.encoders.graph_pooling import POOLINGS, pool, pool_graphs, pooled_width
from flown_jax.encoders.graph_statistics import RANK, layer_scales, neutral, whitened, whitening
from flown_jax.encoders.pairs import DensePairs, SegmentPairs, SparsePairs, neighbours
from flown_jax.encoders.pna import PNA, log_degree
from flown_jax.encoders.probe_features import ProbeFeatures
from flown_jax.encoders.relational_transformer import RelationalTransformerLayer
from flown_jax.errors import UserError
from flown_jax.layers.dense import Dense
from flown_jax.models.activations import get_activation

BACKBONES = ("transformer", "pna")
FORMS = ("sparse", "dense")
_NODE_FIELDS = ("role", "index", "spatial", "activation")


class GraphEncoder(nn.Module):
    """Vectors of weights (B, D) of one topology, or graphs of several, to (B, d_out).

    The defaults are small; Table 7's are node_dim 64, edge_dim 32, attention_dim 128, 8 heads, 4
    layers, node_hidden 128, edge_hidden 64, 128 frequencies, softmax_scale `width`, form `dense`.

    Attributes:
      topology: of the vectors, see `weights.graphs`.
      d_out: length of an output. None gives the pooled features as they are.
      backbone: `transformer` or `pna`.
      form: of the transformer's pairs. `sparse` keeps to those that an edge joins; `dense` has all,
        as published.
      masked: the dense form attends where the sparse one does, and computes the same.
      node_dim, edge_dim, attention_dim, num_heads, num_layers, node_hidden, edge_hidden,
        softmax_scale: as of `RelationalTransformerLayer`; PNA takes node_dim and num_layers.
      frequencies, sigma: of the random Fourier features.
      edge_levels: see `GraphInputs`.
      reverse_features: an edge's features are followed by those of its reverse and their sum.
      pooling: `outputs`, the output nodes one after another, as published; `layers`, these and the
        mean and deviation of each hidden layer's nodes; `mean_outputs` or `mean` of all nodes;
        `class_token`, a learned node beside the graph (dense form alone).
      last_edge_update: the transformer's last layer updates edges, too, though nothing reads them.
      head_dims, head_activation: of the last MLP; relu is published.
      skip: a linear layer beside the last MLP; not published.
      reference: what is pooled is the difference to one fixed network, so that it does not drift
        when the parameters are trained; not published.
      levels: hidden layers of the deepest graph; None takes the topology's.
      positions: places of the largest map with repeated units; None takes the topology's.
      activations: whether nodes know their activation.
      probes: inputs of `ProbeFeatures`, for vectors of perceptrons; 0 for none.
      batch_norm: PNA normalises over all graphs of a batch (or chunk) together, as published.
      delta: of `PNA`; None takes the topology's.
      chunk: networks at a time. More are encoded one chunk after another, and a chunk's
        intermediate values are computed again for its gradient, so that memory does not grow.
        None for all at once.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: an unknown backbone, form or pooling, or some that do not go together.
    """

    topology: Any
    d_out: int | None
    backbone: str = "transformer"
    form: str = "sparse"
    masked: bool = False
    node_dim: int = 32
    edge_dim: int = 8
    attention_dim: int = 16
    num_heads: int = 4
    num_layers: int = 3
    node_hidden: int = 64
    edge_hidden: int = 16
    softmax_scale: str = "head"
    modulate: bool = True
    frequencies: int = 64
    sigma: float = 1.0
    edge_levels: bool = True
    reverse_features: bool = False
    pooling: str = "layers"
    last_edge_update: bool = False
    head_dims: tuple[int, ...] = (128, 128)
    head_activation: str = "silu"
    skip: bool = True
    reference: bool = True
    levels: int | None = None
    positions: int | None = None
    activations: bool = False
    probes: int = 0
    batch_norm: bool = False
    delta: float | None = None
    chunk: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for field, known in (("backbone", BACKBONES), ("form", FORMS), ("pooling", POOLINGS)):
            if getattr(self, field) not in known:
                raise UserError(
                    f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(known)}."
                )
        if self.pooling == "class_token" and (self.form, self.backbone) != ("dense", BACKBONES[0]):
            raise UserError(
                "pooling 'class_token' is for the backbone 'transformer' in form 'dense'."
            )
        super().__post_init__()

    def setup(self) -> None:
        top = self.topology
        self._outputs = int(np.sum(top.role == OUTPUT))
        if not self._outputs and self.pooling not in ("mean", "class_token"):
            raise UserError(
                "the graph has no output nodes: it is of a part of a network. Pool by 'mean'."
            )
        places = int(top.spatial.max()) + 1
        self.embed = GraphInputs(
            self.node_dim,
            self.edge_dim,
            self.frequencies,
            self.sigma,
            int(np.sum(top.role == INPUT)),
            self._outputs,
            self.depth,
            places if self.positions is None else self.positions,
            bool(top.linear.any()),
            self.activations,
            self.edge_levels,
            self.reverse_features,
            self.dtype,
        )
        last = self.num_layers - 1
        if self.backbone == "pna":
            self.gnn = PNA(
                self.node_dim,
                self.num_layers,
                self.delta or log_degree(np.bincount(top.receivers, minlength=len(top.role))),
                batch_norm=self.batch_norm,
                dtype=self.dtype,
            )
        else:
            self.layers = [
                RelationalTransformerLayer(
                    self.attention_dim,
                    self.num_heads,
                    self.node_hidden,
                    self.edge_hidden,
                    self.softmax_scale,
                    self.modulate,
                    edge_update=layer < last or self.last_edge_update,
                    dtype=self.dtype,
                )
                for layer in range(self.num_layers)
            ]
        if self.probes:
            self.probe = ProbeFeatures(self.probes, self.node_dim, dtype=self.dtype)
        if self.pooling == "class_token":
            self.token = self.param("class_token", nn.initializers.normal(1.0), (self.node_dim,))
        if self.d_out is not None:
            self.head = [Dense(n, dtype=self.dtype) for n in (*self.head_dims, self.d_out)]
            if self.skip:
                self.linear = Dense(self.d_out, dtype=self.dtype)
        # Fixed by `fit`: scales of the weights by layer, the reference, the whitening.
        columns, ones = top.node_source.shape[1], jnp.ones
        self.node_scale = self.variable("constants", "node_scale", ones, (self.depth + 1, columns))
        self.edge_scale = self.variable("constants", "edge_scale", ones, (self.depth + 1,))
        if self.reference:
            self.origin = self.variable("constants", "origin", jnp.zeros, (top.size,))
        self.whitening = self.variable("constants", "whitening", neutral, self.width)

    @property
    def depth(self) -> int:
        """Hidden layers of the deepest graph.

        Raises:
          UserError: the topology has more than `levels`.
        """
        hidden = self.topology.index[self.topology.role == HIDDEN]
        deepest = int(hidden.max()) + 1 if len(hidden) else 0
        if self.levels is not None and deepest > self.levels:
            raise UserError(
                f"the network has {deepest} hidden layers, and levels is {self.levels}."
            )
        return deepest if self.levels is None else self.levels

    @property
    def width(self) -> int:
        """Length of the pooled features."""
        outputs = int(np.sum(self.topology.role == OUTPUT))
        return pooled_width(self.pooling, outputs, self.depth, self.node_dim)

    def __call__(self, x: Any) -> Array:
        """Outputs (B, d_out).

        Args:
          x: vectors of weights (B, D), or a jraph.GraphsTuple of B networks as
            `weights.graphs.Topology.graph` makes them, padded ones included.
        Raises:
          UserError: vectors of another length, or graphs with other features.
        """
        features = self.pooled(x)
        self.sow("intermediates", "pooled", features)
        features = whitened(features, self.whitening.value)
        if self.d_out is None:
            return features
        *hidden, last = self.head
        h, activation = features, get_activation(self.head_activation)
        for layer in hidden:
            h = activation(layer(h))
        return last(h) + self.linear(features) if self.skip else last(h)

    def pooled(self, x: Any) -> Array:
        """Features (B, width) before they are whitened."""
        if hasattr(x, "n_node"):
            found = self._of_graphs(x)
            return found - self._of_vectors(self._origin()) if self.reference else found
        if x.ndim != 2 or x.shape[1] != self.topology.size:
            raise UserError(
                f"the graph encoder takes weight vectors (B, {self.topology.size}), got {x.shape}."
            )
        count = len(x)
        if self.reference:
            x = jnp.concatenate([x, self._origin().astype(x.dtype)])
        # While they are made there are no variables to give to the chunks.
        direct = self.is_initializing() or not self.chunk or count <= self.chunk
        found = self._of_vectors(x) if direct else self._in_chunks(x)
        return found[:count] - found[count:] if self.reference else found

    def _origin(self) -> Array:
        return jnp.asarray(self.origin.value)[None]

    def _in_chunks(self, x: Array) -> Array:
        assert self.chunk
        one = self.clone(parent=None, name=None, chunk=None)

        @jax.checkpoint
        def encode(variables: Any, part: Array) -> Array:
            return one.apply(variables, part, method="_of_vectors")

        variables, whole = self.variables, len(x) // self.chunk * self.chunk
        parts = x[:whole].reshape(-1, self.chunk, x.shape[1])
        found = jax.lax.map(lambda part: encode(variables, part), parts).reshape(whole, -1)
        return found if whole == len(x) else jnp.concatenate([found, encode(variables, x[whole:])])

    @nn.nowrap
    def fit(self, variables: Mapping[str, Any], w: Any) -> dict[str, Any]:
        """The variables with the statistics of training networks; call it on the unbound module.

        Weights are divided by their root mean square in each layer, and what is pooled is whitened.

        Args:
          variables: as `init` gives them.
          w: (N, D); the first 64 are used.
        """
        w = jnp.asarray(w)[:RANK]
        nodes, edges = layer_scales(self.topology, np.asarray(w), self.depth)
        constants = {**variables["constants"], "node_scale": nodes, "edge_scale": edges}
        if self.reference:
            constants["origin"] = w.mean(0)
        pooled = jax.jit(lambda v, x: self.apply(v, x, method="pooled"))
        features = pooled({**variables, "constants": constants}, w)
        return {**variables, "constants": {**constants, "whitening": whitening(features)}}

    def states(self, w: Array) -> tuple[Array, Array]:
        """The transformer's last nodes (B, n, node_dim) and edges (B, E, edge_dim)."""
        pairs = self._pairs()
        x, e = self._attended(*self._features(w), pairs)
        return x, pairs.edges(e)

    def _of_vectors(self, w: Array) -> Array:
        found = self._features(w)
        if self.backbone == "pna":
            return self._pool(self._gathered(*found))
        return self._pool(self._attended(*found, self._pairs())[0])

    def _pool(self, x: Array) -> Array:
        return pool(x, self.topology, self.pooling, self.depth)

    def _features(self, w: Array) -> tuple[Array, Array, Array | None, Array]:
        top = self.topology
        nodes, edges = top.features(w)
        probed = self.probe(top, nodes, edges) if self.probes else None
        return self._embedded(nodes, edges, top, top.linear, top.receivers, probed)

    def _pairs(self) -> Any:
        top = self.topology
        ends = top.senders, top.receivers, len(top.role)
        if self.form == "sparse":
            return SparsePairs(*ends)
        return DensePairs(*ends, neighbours(*ends) if self.masked else None)

    def _of_graphs(self, graphs: Any) -> Array:
        at, count = graphs.nodes, len(graphs.nodes["role"])
        taken = self.topology.node_source.shape[1], self.topology.edge_source.shape[1]
        given = at["features"].shape[1], graphs.edges["features"].shape[1]
        if given != taken:
            raise UserError(
                f"the graphs have {given[0]} features a node and {given[1]} an edge, and the "
                f"encoder takes {taken[0]} and {taken[1]}."
            )
        named = SimpleNamespace(**{name: at[name] for name in _NODE_FIELDS})
        edges = graphs.edges
        found = self._embedded(
            at["features"], edges["features"], named, edges["linear"], graphs.receivers
        )
        many = graphs.n_node.shape[0]
        of = jnp.repeat(jnp.arange(many), graphs.n_node, total_repeat_length=count)
        if self.backbone == "pna":
            x = self._passed(*found[:3], (graphs.senders, graphs.receivers), of, many)
        else:
            x, _ = self._attended(*found, SegmentPairs(graphs.senders, graphs.receivers, count))
        return pool_graphs(x, of, many, named, self.pooling, self.depth, self._outputs)

    def _embedded(
        self,
        nodes: Array,
        edges: Array,
        at: Any,
        linear: Any,
        receivers: Any,
        probed: Array | None = None,
    ) -> tuple[Array, Array, Array | None, Array]:
        """Vectors of nodes, of edges, of their reverses (or None) and of an absent pair."""
        role, index = jnp.asarray(at.role), jnp.asarray(at.index)
        level = jnp.where(role == OUTPUT, self.depth, index)
        # Inputs have no weights of their own.
        scale = jnp.where((role == INPUT)[:, None], 1.0, jnp.asarray(self.node_scale.value)[level])
        places = role, index, jnp.asarray(at.spatial), jnp.asarray(at.activation)
        x = self.embed.nodes(nodes / scale, *places, probed)
        self.sow("intermediates", "node_in", x)
        to_role, to_index = role[receivers], index[receivers]
        edges = edges / jnp.asarray(self.edge_scale.value)[level[receivers]][:, None]
        if not self.reverse_features:
            e = self.embed.edges(edges, linear, to_role, to_index)
            return x, e, None, self.embed.absent(edges.shape[-1])
        none = jnp.zeros_like(edges)
        forward = jnp.concatenate([edges, none, edges], -1)
        backward = jnp.concatenate([none, edges, edges], -1)
        # As published: the reverse of a linear layer's edge is read as a convolution's.
        conv = jnp.zeros_like(jnp.asarray(linear))
        return (
            x,
            self.embed.edges(forward, linear, to_role, to_index),
            self.embed.edges(backward, conv, to_role, to_index),
            self.embed.absent(3 * edges.shape[-1]),
        )

    def _attended(
        self, x: Array, edges: Array, backward: Array | None, absent: Array, pairs: Any
    ) -> tuple[Array, Array]:
        e = pairs.spread(edges, absent, backward)
        self.sow("intermediates", "edge_in", e)
        if self.pooling == "class_token":
            token = jnp.broadcast_to(self.token, (*x.shape[:-2], 1, x.shape[-1]))
            x = jnp.concatenate([token, x], -2)
            # Unlike an absent pair's, the token's pairs are exactly zero.
            e = jnp.pad(e, ((0, 0),) * (e.ndim - 3) + ((1, 0), (1, 0), (0, 0)))
        for number, layer in enumerate(self.layers):
            x, e = layer(x, e, pairs)
            self.sow("intermediates", f"node_{number}", x)
            self.sow("intermediates", f"edge_{number}", e)
        return x, e

    def _gathered(self, x: Array, edges: Array, backward: Array | None, absent: Array) -> Array:
        """PNA on graphs (B, n, d) of one topology, as one graph of B parts."""
        del absent
        top, (many, count) = self.topology, x.shape[:2]
        first = (np.arange(many, dtype=np.int32) * count)[:, None]
        ends = (first + top.senders).ravel(), (first + top.receivers).ravel()
        of = np.arange(many, dtype=np.int32).repeat(count)
        if backward is not None:
            backward = backward.reshape(-1, backward.shape[-1])
        flat = x.reshape(-1, x.shape[-1]), edges.reshape(-1, edges.shape[-1]), backward
        return self._passed(*flat, ends, of, many).reshape(x.shape)

    def _passed(
        self, x: Array, e: Array, backward: Array | None, ends: Any, of: Any, many: int
    ) -> Array:
        if backward is not None:
            e = jnp.concatenate([e, backward])
            ends = [jnp.concatenate([jnp.asarray(n) for n in way]) for way in (ends, ends[::-1])]
        return self.gnn(x, e, *ends, of, many)
