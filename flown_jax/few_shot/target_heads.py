"""Target heads: what a head of a training task should be, and how large (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.evaluation.classification import index_of_best
from flown_jax.few_shot.space import HeadSpace, of_true_class, query_log_probs
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.models import heads as linear


def fit_heads(
    table: TaskTable,
    *,
    length: float,
    chunk: int = 2000,
    report: Callable[[int], None] | None = None,
    **probe: Any,
) -> np.ndarray:
    """Linear heads (T, n, F + 1) of all tasks by AdamW (paper section 3.2).

    AdamW's first steps have a fixed size, so that a head depends on the length of the features
    it is fitted on. It is returned as a head of the table's own features.

    Args:
      table: of T tasks; a head is fitted on its target images.
      length: of the features while a head is fitted.
      chunk: tasks a program call. report: called with the number of finished tasks.
      probe: as in `models.heads.fit_adamw`.
    """
    chunk = min(chunk, len(table))
    heads = []
    for start in range(0, len(table), chunk):
        images = table.target_images(slice(start, start + chunk))
        factor = length / np.linalg.norm(images[0, 0, 0])
        # One shape, one compilation: the last chunk is padded.
        padded = np.concatenate([images, np.repeat(images[-1:], chunk - len(images), axis=0)])
        found = np.array(_fit_adamw(padded * factor, **probe))[: len(images)]
        found[..., :-1] *= factor
        heads.append(found)
        if report is not None:
            report(start + len(images))
    return np.concatenate(heads)


_fit_adamw = jax.jit(
    linear.fit_adamw, static_argnames=("steps", "learning_rate", "weight_decay", "use_bias")
)


def fit_lda(table: TaskTable, *, shrinkage: float) -> np.ndarray:
    """Linear discriminant heads (T, n, F + 1), with the within-class covariance of all classes.

    Args:
      table: of T tasks over equally many images a class.
      shrinkage: of the covariance, see `models.heads.lda`.
    """
    classes = np.unique(table.episodes.classes)
    features = jnp.asarray(np.asarray(table.features)[classes])
    within = linear.within_class_covariance(features)
    centre = features.mean((0, 1))
    return np.asarray(
        linear.lda(jnp.asarray(table.target_images()), within, centre, shrinkage=shrinkage)
    )


def best_head_temperature(heads: np.ndarray, query: np.ndarray, grid: Sequence[float]) -> float:
    """The divisor of heads with the least query cross-entropy; no accuracy changes by it."""
    scores = [float(query_cross_entropy(jnp.asarray(heads) / t, jnp.asarray(query))) for t in grid]
    return grid[index_of_best(scores, smallest=True)]


def best_base_scale(prototypes: np.ndarray, query: np.ndarray, grid: Sequence[float]) -> float:
    """The scale of the class-mean base head with the least query cross-entropy."""
    space = HeadSpace(jnp.ones(1), jnp.ones(prototypes.shape[-1] + 1), (1,), True)
    unit = space.base({"prototypes": jnp.asarray(prototypes), "shot": jnp.asarray(1)})
    scores = [float(query_cross_entropy(s * unit, jnp.asarray(query))) for s in grid]
    return grid[index_of_best(scores, smallest=True)]


def excess_sharpness(
    training: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]
) -> float:
    """How much larger logits are best on training tasks than on tasks of new classes, at least 1.

    Measured with class-mean heads alone: the ratio of their two best scales.

    Args:
      training, held_out: (prototypes (T, n, F), query (T, n, q, F)) of each.
    """
    grid = np.geomspace(0.05, 10.0, 100)
    seen, new = (best_base_scale(*part, tuple(grid)) for part in (training, held_out))
    return max(1.0, float(seen / new))


def query_cross_entropy(heads: jax.Array, query: jax.Array) -> jax.Array:
    """Mean cross-entropy of the query images under their task's head, a scalar, nats."""
    return -jnp.mean(of_true_class(query_log_probs(heads, query)))
