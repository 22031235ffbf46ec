"""Tables of few-shot tasks over frozen features, and the batches that training draws from them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from flown_jax.data.episodes import Episodes, draw_episodes

BatchAt = Callable[[int], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class TaskTable:
    """T tasks of n classes over image features by class.

    Attributes:
      features: per class an array (images, F).
      episodes: indices: classes (T, n), support (T, n, k), query (T, n, q), numpy.
      targets: (T, n, m) images that the target head is fitted on; the support, unless more.
    """

    features: np.ndarray | list[np.ndarray]
    episodes: Episodes
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.episodes.classes)

    @property
    def shot(self) -> int:
        """k, support images a class."""
        return int(self.episodes.support.shape[-1])

    def take(self, tasks: slice) -> TaskTable:
        """The table of some of the tasks."""
        episodes = jax.tree.map(lambda indices: indices[tasks], self.episodes)
        return TaskTable(self.features, episodes, self.targets[tasks])

    def support(self, tasks: Any = slice(None)) -> np.ndarray:
        """Features of the support images, (t, n, k, F)."""
        return self._gather(tasks, np.asarray(self.episodes.support[tasks]))

    def query(self, tasks: Any = slice(None)) -> np.ndarray:
        """Features of the query images, (t, n, q, F)."""
        return self._gather(tasks, np.asarray(self.episodes.query[tasks]))

    def target_images(self, tasks: Any = slice(None)) -> np.ndarray:
        """Features of the images that the target heads are fitted on, (t, n, m, F)."""
        return self._gather(tasks, self.targets[tasks])

    def prototypes(self, tasks: Any = slice(None)) -> np.ndarray:
        """Class means of the support, (t, n, F)."""
        return self.support(tasks).mean(axis=2)

    def context(self, tasks: Any = slice(None)) -> dict[str, np.ndarray]:
        """What heads of the tasks need: class means of the support, and images a class."""
        means = self.prototypes(tasks)
        return {"prototypes": means, "shot": np.full(len(means), self.shot, np.float32)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of what was drawn: features, and every index into them."""
        digest = hashlib.sha256()
        for array in (*self.features, *jax.tree.leaves(self.episodes), self.targets):
            digest.update(f"{array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def drawn(self) -> str:
        """Hexadecimal SHA-256 of which classes and images were drawn, whatever their features."""
        digest = hashlib.sha256()
        for array in jax.tree.leaves(self.episodes):
            digest.update(f"{array.shape};".encode())
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return digest.hexdigest()

    def query_of(self, tasks: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` random query images a class of some tasks, (t, n, count, F)."""
        pool = np.asarray(self.episodes.query[tasks])
        picked = rng.permuted(np.broadcast_to(np.arange(pool.shape[-1]), pool.shape), axis=-1)
        images: np.ndarray = np.take_along_axis(pool, picked[..., :count], axis=-1)
        return self._gather(tasks, images)

    def _gather(self, tasks: Any, images: np.ndarray) -> np.ndarray:
        classes = self.episodes.classes[tasks]
        if isinstance(self.features, np.ndarray):
            return self.features[classes[..., None], images]
        rows = [
            self.features[c][i]
            for c, i in zip(classes.ravel(), images.reshape(-1, images.shape[-1]), strict=True)
        ]
        return np.stack(rows).reshape(*images.shape, -1)


def draw_tasks(
    key: jax.Array,
    features: np.ndarray | list[np.ndarray],
    class_ids: np.ndarray,
    *,
    way: int,
    shot: int,
    query: int,
    count: int,
    target_shots: int | None = None,
) -> TaskTable:
    """Tasks over some classes; the support is a part of the images of the target head.

    Args:
      key: task i is a function of it and of i alone.
      features: per class (images, F). class_ids: the classes that tasks are drawn from.
      way, shot, query, count: n, k, q and T.
      target_shots: images a class that target heads are fitted on; None for the support's.
    Raises:
      UserError: fewer classes than `way`, fewer images than a task needs.
    """
    fitted = max(shot, target_shots or shot)
    sizes = np.asarray([len(features[c]) for c in class_ids])
    episodes = draw_episodes(key, class_ids, sizes, way=way, shot=fitted, query=query, count=count)
    episodes = jax.tree.map(np.asarray, episodes)
    targets = episodes.support
    return TaskTable(features, episodes.replace(support=targets[..., :shot]), targets)


def make_batches(
    table: TaskTable,
    arrays: dict[str, Any],
    *,
    seed: int,
    batch: int,
    query: int,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    permute: bool = False,
) -> BatchAt:
    """The batches of a run: `batch_at(step)`, a pure function of the step.

    Args:
      table: of T tasks.
      arrays: further arrays with a leading axis T (heads, conditions, latents), or nested dicts.
      seed: of the draws. batch: tasks a step. query: query images a class a step.
      prepare: applied to the batch at last (conditions and latents of permuted tasks).
      permute: give the classes of each task a random order, in every entry with a class axis;
        such entries must be computed from the classes alone.
    """
    prototypes = table.prototypes()

    def batch_at(step: int) -> dict[str, Any]:
        rng = np.random.default_rng((seed, step))
        tasks = rng.integers(0, len(table), batch)
        shot = np.full(batch, table.shot, np.float32)
        entries: dict[str, Any] = {
            "context": {"prototypes": prototypes[tasks], "shot": shot},
            "shot": shot,
            "query": table.query_of(tasks, rng, query),
            **jax.tree.map(lambda a: a[tasks], arrays),
        }
        if permute:
            entries["support"] = table.support(tasks)
            order = rng.permuted(
                np.broadcast_to(np.arange(prototypes.shape[1]), prototypes[tasks].shape[:2]), axis=1
            )
            rows = np.arange(batch)[:, None]
            entries = jax.tree.map(lambda a: a[rows, order] if a.ndim > 1 else a, entries)
        return entries if prepare is None else prepare(entries)

    return batch_at


def alternate(batches: Sequence[BatchAt]) -> BatchAt:
    """The batches of several tables in turn, one table a step."""
    return lambda step: batches[step % len(batches)](step)
