"""The condition of a data set: its class embeddings from a few support images of each class.

A data set's condition varies with the images that are drawn, so that many draws are kept: the flow
sees another one at each step, and a sample is made of a draw of images that it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.meta_model.condition import Conditioner

Conditions = dict[str, np.ndarray]


def conditions(
    conditioner: Conditioner, features: np.ndarray, supports: np.ndarray, chunk: int = 50
) -> Conditions:
    """Named arrays (S, n, E) of S support draws.

    Args:
      features: (m, F). supports: (S, n, k) indices into them.
      chunk: draws at a time.
    """
    parts = []
    for start in range(0, len(supports), chunk):
        rows = supports[start : start + chunk]
        padded = np.concatenate([rows, np.repeat(rows[-1:], chunk - len(rows), axis=0)])
        found = _condition(conditioner, features[padded])
        parts.append({name: np.asarray(value)[: len(rows)] for name, value in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@jax.jit
def _condition(conditioner: Conditioner, support: jax.Array) -> dict[str, jax.Array]:
    return conditioner(support, chunk=10)


def centres(banks: Mapping[str, Conditions]) -> dict[str, dict[str, jax.Array]]:
    """The mean of each data set's conditions, named arrays (1, n, E)."""
    return {
        name: {key: jnp.asarray(value.mean(0, keepdims=True)) for key, value in own.items()}
        for name, own in banks.items()
    }


def nearest_set(condition: Mapping[str, np.ndarray], banks: Mapping[str, Conditions]) -> list[str]:
    """The data set whose known support draws have the nearest mean, for each of S draws.

    This is retrieval in the plain sense: with it any network of that set can be handed out.

    Args:
      condition: named arrays (S, n, E).
      banks: of each data set, named arrays (S', n, E).
    """
    names = list(banks)
    flat = _rows(condition)
    centres = np.stack([_rows(banks[name]).mean(0) for name in names])
    distances = ((flat[:, None] - centres[None]) ** 2).sum(-1)
    return [names[i] for i in distances.argmin(1)]


def _rows(condition: Mapping[str, np.ndarray]) -> np.ndarray:
    count = len(next(iter(condition.values())))
    return np.concatenate([condition[k].reshape(count, -1) for k in sorted(condition)], axis=1)
