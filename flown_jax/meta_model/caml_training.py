"""CAML's training on episodes over frozen features, and its predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.conditioning import CAML, caml_loss, predict
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import TrainState, averaged


def train_caml(
    context: StageContext,
    module: CAML,
    batch_at: Callable[[int], dict[str, Any]],
    recipe: Recipe,
    *,
    seed: int,
    noise: float,
    validate: tuple[np.ndarray, np.ndarray] | None = None,
) -> Any:
    """Variables of CAML, trained on meta-train episodes, way-agnostic.

    Args:
      batch_at: batch of a step, with `support` (B, n, k, F) and `query` (B, n, q, F).
      noise: on the support features while training.
      validate: support (T, n, k, F) and query (T, n, q, F) of tasks whose accuracy chooses the
        checkpoint.
    """
    first = batch_at(0)
    way, shot = first["support"].shape[1:3]
    variables = jax.jit(module.init)(
        jax.random.key(seed),
        first["support"][:1].reshape(1, way * shot, -1),
        jnp.repeat(jnp.arange(way), shot),
        first["query"][:1, 0],
    )

    def loss_fn(params, key, batch, extra):
        key_noise, key_names = jax.random.split(key)
        support = batch["support"]
        support = support + noise * jax.random.normal(key_noise, support.shape)
        value, metrics = caml_loss(module, params, key_names, support, batch["query"])
        return value, (metrics, extra)

    def score(state: TrainState) -> float:
        assert validate is not None
        log_probs = caml_log_probs(module, averaged(state), *validate)
        labels = np.repeat(np.arange(way), log_probs.shape[1] // way)
        return float((log_probs.argmax(-1) == labels).mean())

    state = train(
        context,
        recipe,
        variables,
        loss_fn,
        batch_at,
        seed=seed,
        validate=score if validate is not None else None,
    )
    return averaged(state)


def caml_log_probs(
    module: CAML, variables: Any, support: np.ndarray, query: np.ndarray, chunk: int = 25
) -> np.ndarray:
    """CAML's log-probabilities (T, n q, n) of the query images of T tasks.

    Args:
      support: (T, n, k, F). query: (T, n, q, F). chunk: tasks at a time.
    """
    out = []
    for start in range(0, len(support), chunk):
        s, q = support[start : start + chunk], query[start : start + chunk]
        pad = [(0, chunk - len(s))] + [(0, 0)] * 3
        log_probs = _predict(module, variables, np.pad(s, pad, "edge"), np.pad(q, pad, "edge"))
        out.append(np.asarray(log_probs)[: len(s)])
    return np.concatenate(out)


_predict = jax.jit(predict, static_argnums=0)
