"""What the autoencoder of heads, its generators and CAML learn from, by step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from flown_jax.few_shot.tasks import BatchAt, TaskTable, alternate, make_batches
from flown_jax.meta_model.condition import Conditioner
from flown_jax.meta_model.latents import LatentSpace


@dataclasses.dataclass(frozen=True)
class Examples:
    """Training tasks of one number of support images a class, with their target heads.

    Attributes:
      table: of T tasks.
      heads: (T, n, F + 1).
    """

    table: TaskTable
    heads: np.ndarray


def head_batches(examples: Sequence[Examples], *, seed: int, batch: int, query: int) -> BatchAt:
    """Batches of the autoencoder: heads, their contexts, and queries for the task loss.

    Args:
      examples: training tasks and their heads, one table a step in turn.
      batch: tasks a step. query: query images a class and step.
    """
    settings: dict[str, Any] = {"seed": seed, "batch": batch, "query": query}
    # Without the support images all shots have batches of one shape: one compilation.
    settings |= {"permute": True, "prepare": _without_support}
    return alternate([make_batches(e.table, {"weights": e.heads}, **settings) for e in examples])


def episode_batches(tables: Sequence[TaskTable], *, seed: int, batch: int, query: int) -> BatchAt:
    """Batches of CAML: support and query images of tasks, one table a step in turn."""
    settings: dict[str, Any] = {"seed": seed, "batch": batch, "query": query, "permute": True}
    return alternate([make_batches(table, {}, **settings) for table in tables])


def condition_batches(
    examples: Sequence[Examples],
    conditioner: Conditioner,
    latents: LatentSpace,
    *,
    seed: int,
    batch: int,
    query: int,
    permute: bool,
) -> BatchAt:
    """Batches for flow, diffusion and regression: latents, conditions, contexts, queries.

    Args:
      examples: training tasks and their heads, one table a step in turn.
      permute: give the classes of each task a random order at every step; conditions and latents
        are then computed for that order, else once for all tasks.
    """
    encode = functools.partial(jax.jit(LatentSpace.encode), latents)
    condition = functools.partial(jax.jit(Conditioner.__call__), conditioner)

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        support = batch.pop("support")
        batch["condition"] = condition(support)
        batch["latent"] = encode(batch["weights"], batch["context"])
        return batch

    def of_table(part: Examples) -> BatchAt:
        settings: dict[str, Any] = {"seed": seed, "batch": batch, "query": query}
        if permute:
            arrays = {"weights": part.heads}
            return make_batches(part.table, arrays, prepare=prepare, permute=True, **settings)
        chunks = [slice(start, start + 1000) for start in range(0, len(part.heads), 1000)]
        known = [jax.tree.map(np.asarray, condition(part.table.support(c))) for c in chunks]
        latent = [np.asarray(encode(part.heads[c], part.table.context(c))) for c in chunks]
        arrays = {
            "latent": np.concatenate(latent),
            "condition": jax.tree.map(lambda *parts: np.concatenate(parts), *known),
        }
        return make_batches(part.table, arrays, **settings)

    return alternate([of_table(part) for part in examples])


def _without_support(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in batch.items() if name != "support"}
