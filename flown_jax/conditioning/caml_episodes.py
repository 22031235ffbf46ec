"""Episodes through CAML: its loss, its predictions, and the condition y it gives (paper A.4.2).

The condition of a task is the mean query token of each class after the last LayerNorm. Which
images stand in the query role decides whether it stays a few-shot condition: `query_source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.conditioning.caml import CAML, check_way

QUERY_SOURCES = ("support", "leave_one_out", "one_per_class", "query_predicted", "query_true")


def caml_loss(
    module: CAML, variables: Mapping[str, Any], key: Array, support: Array, query: Array
) -> tuple[Array, dict[str, Array]]:
    """Cross-entropy of the queries, each episode's classes named at random (way-agnostic).

    Every episode draws n distinct label rows out of the module's C, and the loss runs over these.

    Args:
      variables: of the module, `{"params": ...}`.
      support, query: image features by class, (B, n, k, F) and (B, n, q, F); n <= C.
    Returns:
      The mean loss, and {"accuracy": mean accuracy}.
    Raises:
      ValueError: n > C, or a wrong number of axes.
    """
    rows = random_label_rows(key, support.shape[0], support.shape[1], module.num_classes)
    features, labels = _flat_support(support)
    queries = _by_class("query", query, support).reshape(query.shape[0], -1, query.shape[-1])
    logits = _apply(module, variables, features, labels, queries, rows)
    targets = jnp.repeat(jnp.arange(query.shape[1]), query.shape[2])
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.mean(log_probs[:, jnp.arange(targets.size), targets])
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == targets)
    return loss, {"accuracy": accuracy}


def random_label_rows(key: Array, batch: int, way: int, num_classes: int) -> Array:
    """A random injective naming of `way` classes for each of `batch` episodes, (batch, way).

    Raises:
      ValueError: way > num_classes.
    """
    check_way(way, num_classes)
    order = jnp.argsort(jax.random.uniform(key, (batch, num_classes)), axis=-1)
    return order[:, :way]


def predict(
    module: CAML,
    variables: Mapping[str, Any],
    support: Array,
    query: Array,
    *,
    label_rows: Array | None = None,
    average_namings: bool = False,
) -> Array:
    """Log-probabilities of the queries over the n classes, (B, q, n).

    Args:
      support: image features by class, (B, n, k, F).
      query: (B, q, F), or by class (B, n, q', F) with q = n q'; each query stands alone.
      label_rows: (n,) or (B, n) label rows of the classes; None names them 0..n-1.
      average_namings: mean of the log-probabilities over the n cyclic renamings, normalised
        again, which gives each class each name once.
    Raises:
      ValueError: n > C, or shapes that do not fit.
    """
    batch, way = support.shape[:2]
    rows = _naming(module, way, label_rows)
    features, labels = _flat_support(support)
    queries = query.reshape(batch, -1, query.shape[-1])

    def log_probs(rows: Array) -> Array:
        logits = _apply(module, variables, features, labels, queries, rows)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    if not average_namings:
        return log_probs(rows)
    namings = jnp.stack([jnp.roll(rows, -shift, axis=-1) for shift in range(way)])
    return jax.nn.log_softmax(jnp.mean(jax.lax.map(log_probs, namings), axis=0))


def class_embeddings(
    module: CAML,
    variables: Mapping[str, Any],
    support: Array,
    *,
    query_source: str = "support",
    query: Array | None = None,
    key: Array | None = None,
    label_rows: Array | None = None,
    layer: int | None = None,
    chunk: int | None = None,
) -> Array:
    """Mean query token of each class, the paper's condition, (B, n, F + label_dim).

    Args:
      support: image features by class, (B, n, k, F).
      query_source: which images stand in the query role.
        `support`: every support image; `leave_one_out`: every support image, left out of its own
        support set (k >= 2); `one_per_class`: one random support image a class (needs `key`);
        `query_predicted`: the query images, grouped by this network's own prediction, a class
        without any falling back to its support (transductive: report it as such);
        `query_true`: the query images grouped by their true label, an oracle: it hands the
        condition q labelled images a class, so that no result with it is a few-shot result.
      query: (B, n, q, F) by class, used by the two query sources alone.
      key: used by `one_per_class` alone.
      label_rows: (n,) or (B, n); None names the classes 0..n-1. A renaming changes the
        embeddings (the network is not equivariant): recompute them, do not permute stored ones.
      layer: as in `CAML.query_embeddings`.
      chunk: episodes at a time; None runs all at once.
    Raises:
      ValueError: unknown source, a missing `query` or `key`, k < 2 for leave_one_out, n > C.
    """
    if query_source not in QUERY_SOURCES:
        raise ValueError(
            f"query_source must be one of {', '.join(QUERY_SOURCES)}, not {query_source!r}."
        )
    batch, way, shot, _ = support.shape
    rows = jnp.broadcast_to(_naming(module, way, label_rows), (batch, way))
    episode: dict[str, Array] = {"support": support, "rows": rows}
    if query_source == "leave_one_out" and shot < 2:
        raise ValueError("query_source 'leave_one_out' needs at least 2 support images a class.")
    if query_source == "one_per_class":
        if key is None:
            raise ValueError("query_source 'one_per_class' draws an image a class: give a key.")
        episode["chosen"] = jax.random.randint(key, (batch, way), 0, shot)
    if query_source.startswith("query_"):
        if query is None:
            raise ValueError(f"query_source {query_source!r} needs the query images by class.")
        episode["query"] = _by_class("query", query, support)

    def one(episode: dict[str, Array]) -> Array:
        return _episode_embeddings(module, variables, episode, query_source, layer)

    if chunk is None:
        return jax.vmap(one)(episode)
    return jax.lax.map(one, episode, batch_size=chunk)


def class_means(embeddings: Array, labels: Array, num_classes: int) -> Array:
    """Mean of the embeddings of each class, (..., num_classes, E); zero where there is none.

    Args:
      embeddings: (..., q, E). labels: (..., q) or (q,) integers.
    """
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=embeddings.dtype)
    sums = jnp.einsum("...qc,...qe->...ce", one_hot, embeddings, precision="highest")
    return sums / jnp.maximum(one_hot.sum(-2), 1.0)[..., None]


@struct.dataclass
class SlotStandardizer:
    """Zero mean and unit variance for each slot and dimension of class embeddings.

    Most of the variance of CAML's class embeddings is the slot (the name), not the class; this
    removes it. Fitted on training tasks and stored with the model.

    Attributes:
      mean, std: (n, E).
    """

    mean: Array
    std: Array

    @classmethod
    def fit(cls, embeddings: Array) -> SlotStandardizer:
        """Statistics over tasks.

        Args:
          embeddings: (T, n, E) class embeddings of T >= 2 training tasks.
        """
        if jnp.ndim(embeddings) != 3 or embeddings.shape[0] < 2:
            raise ValueError(
                f"SlotStandardizer.fit wants embeddings (T >= 2, n, E), not {embeddings.shape}."
            )
        std = jnp.std(embeddings, axis=0)
        # A dimension that never varies carries nothing: leave it at zero instead of dividing by 0.
        return cls(jnp.mean(embeddings, axis=0), jnp.where(std > 1e-6, std, 1.0))

    def apply(self, embeddings: Array) -> Array:
        """Standardised embeddings, (..., n, E)."""
        if embeddings.shape[-2:] != self.mean.shape:
            raise ValueError(
                f"embeddings {embeddings.shape} must end in the fitted slots {self.mean.shape}."
            )
        return (embeddings - self.mean) / self.std


def _episode_embeddings(
    module: CAML,
    variables: Mapping[str, Any],
    episode: Mapping[str, Array],
    query_source: str,
    layer: int | None,
) -> Array:
    """Class embeddings of one episode, (n, E)."""
    support, rows = episode["support"], episode["rows"]
    way, shot, width = support.shape
    labels = jnp.repeat(jnp.arange(way), shot)
    features = support.reshape(-1, width)

    def embed(features: Array, labels: Array, queries: Array) -> Array:
        return _apply(
            module, variables, features, labels, queries, rows, layer, method="query_embeddings"
        )

    if query_source == "leave_one_out":
        count = way * shot
        others = np.nonzero(~np.eye(count, dtype=bool))[1].reshape(count, count - 1)
        left_out = jax.vmap(embed)(features[others], labels[others], features[:, None])
        return left_out.reshape(way, shot, -1).mean(1)
    if query_source == "one_per_class":
        return embed(features, labels, support[jnp.arange(way), episode["chosen"]])
    if query_source == "query_true":
        tokens = embed(features, labels, episode["query"].reshape(-1, width))
        return tokens.reshape(way, -1, tokens.shape[-1]).mean(1)
    if query_source == "support":
        return embed(features, labels, features).reshape(way, shot, -1).mean(1)

    # Queries grouped by prediction: the support stands beside them for the classes left empty.
    both = jnp.concatenate([features, episode["query"].reshape(-1, width)])
    tokens, logits = _apply(
        module, variables, features, labels, both, rows, method="embed_and_classify"
    )
    if layer is not None:
        tokens = embed(features, labels, both)
    predicted = jnp.argmax(logits[way * shot :, rows], axis=-1)
    means = class_means(tokens[way * shot :], predicted, way)
    present = jnp.any(predicted[:, None] == jnp.arange(way), axis=0)
    of_support = tokens[: way * shot].reshape(way, shot, -1).mean(1)
    return jnp.where(present[:, None], means, of_support)


def _apply(module: CAML, variables: Mapping[str, Any], *args: Any, method: str = "__call__") -> Any:
    """`module.apply` without mutable collections: what the method returns."""
    return module.apply(variables, *args, method=method)


def _flat_support(support: Array) -> tuple[Array, Array]:
    if support.ndim != 4:
        raise ValueError(f"support wants image features (B, n, k, F), not {support.shape}.")
    batch, way, shot, width = support.shape
    return support.reshape(batch, way * shot, width), jnp.repeat(jnp.arange(way), shot)


def _by_class(name: str, query: Array, support: Array) -> Array:
    if query.ndim != 4 or query.shape[:2] != support.shape[:2]:
        raise ValueError(
            f"{name} {query.shape} wants image features (B, n, q, F) with the episodes and "
            f"classes of support {support.shape}."
        )
    return query


def _naming(module: CAML, way: int, label_rows: Array | None) -> Array:
    check_way(way, module.num_classes)
    rows = jnp.arange(way) if label_rows is None else jnp.asarray(label_rows)
    if rows.shape[-1] != way:
        raise ValueError(f"label_rows {rows.shape} must name each of the {way} classes.")
    return rows
