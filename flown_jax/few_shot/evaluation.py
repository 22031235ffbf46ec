"""What can be made of heads on query images: single ones, ensembles, the best of several."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array

from flown_jax.evaluation import classification
from flown_jax.evaluation.predictions import Prediction
from flown_jax.models import heads as linear


@jax.jit
def head_log_probs(heads: Array, images: Array) -> Array:
    """Log-probabilities (S, T, n q, n) of heads (S, T, n, F + 1) on features (T, n, q, F)."""
    flat = images.reshape(images.shape[0], -1, images.shape[-1])
    return jax.lax.map(lambda h: jax.nn.log_softmax(linear.logits(h, flat)), heads)


def single(heads: Array, query: Array) -> Prediction:
    """One head a task, (T, n, F + 1)."""
    return Prediction(np.asarray(head_log_probs(heads[None], query)))


def mixed_with_head(
    prediction: Prediction, heads: Array, query: Array, weight: float
) -> Prediction:
    """A method's log-probabilities plus weighted logits of one head a task, normalised again.

    Args:
      prediction: of S = 1. heads: (T, n, F + 1). query: (T, n, q, F). weight: of the logits.
    """
    flat = query.reshape(query.shape[0], -1, query.shape[-1])
    scores = prediction.log_probs + weight * np.asarray(linear.logits(heads, flat))[None]
    return Prediction(np.asarray(jax.nn.log_softmax(scores)))


def sampled(heads: Array, query: Array, support: Array, top: int) -> dict[str, Prediction]:
    """What can be made of S heads a task.

    Args:
      heads: (S, T, n, F + 1). query: (T, n, q, F). support: (T, n, k, F). top: how many to choose.
    Returns:
      `mean`: each head by itself; `ensemble`: the average of their probabilities;
      `top_support`: the `top` heads with the least cross-entropy on the support;
      `top_query`: those with the highest accuracy on the query images themselves, which is a
      selection on test labels.
    """
    every = Prediction(np.asarray(head_log_probs(heads, query)))
    on_support = Prediction(np.asarray(head_log_probs(heads, support)))
    fit = -classification.nll(on_support.log_probs, on_support.labels)
    right = classification.accuracy(every.log_probs, every.labels)
    return {
        "mean": every,
        "ensemble": Prediction(classification.ensemble_log_probs(every.log_probs)[None]),
        "top_support": _best(every, fit, top),
        "top_query": _best(every, right, top),
    }


def _best(every: Prediction, scores: np.ndarray, top: int) -> Prediction:
    """The predictions of the `top` heads a task with the highest scores (S, T)."""
    order = classification.top_k_by(scores.T, top).T
    return Prediction(np.take_along_axis(every.log_probs, order[..., None, None], axis=0))
