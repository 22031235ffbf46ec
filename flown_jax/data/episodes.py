"""Few-shot episodes as pure functions of (key, index) (paper section 3.2).

An episode is n classes and, of each, k support and q query images, all without replacement. The
label of a class is its drawn position, so that nothing about a class id reaches the label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Setting:
    """n classes of k support images each.

    Attributes:
      way: n. shot: k.
    """

    way: int
    shot: int

    @property
    def name(self) -> str:
        """As in the config and in results."""
        return f"{self.way}-way {self.shot}-shot"

    @property
    def slug(self) -> str:
        """For the names of files."""
        return self.name.replace(" ", "-")

    def check(self, where: str, classes: int, images: int, query: int) -> None:
        """Refuse sets that are too small for tasks of this setting.

        Args:
          where: which set. classes: how many it has. images: in its smallest class.
          query: query images a class.
        Raises:
          UserError: too few classes or images.
        """
        if classes < self.way:
            raise UserError(f"{self.name} tasks need {self.way} classes; {where} are {classes}.")
        if images < self.shot + query:
            raise UserError(
                f"{self.name} tasks with {query} query images need {self.shot + query} images of "
                f"each class; the smallest of {where} has {images}."
            )


@struct.dataclass
class Episodes:
    """T episodes as indices; class c of an episode has label c.

    Attributes:
      classes: (T, n) class ids.
      support: (T, n, k) image indices within the class.
      query: (T, n, q) image indices within the class.
    """

    classes: Array
    support: Array
    query: Array

    def take(self, images: Array) -> tuple[Array, Array]:
        """Support and query entries, (T, n, k, ...) and (T, n, q, ...).

        Args:
          images: (classes, images a class, ...): images or their features, the first axis
            indexed by class id.
        """
        classes = self.classes[..., None]
        return images[classes, self.support], images[classes, self.query]


def draw_episodes(
    key: Array,
    class_ids: Sequence[int] | np.ndarray | Array,
    images_per_class: int | Sequence[int] | np.ndarray,
    *,
    way: int,
    shot: int,
    query: int,
    count: int,
    start: int | Array = 0,
) -> Episodes:
    """Episodes `start` to `start + count - 1` of the stream that `key` defines.

    Episode i depends on the key and on i alone, not on how many are drawn with it.

    Args:
      key: of the stream.
      class_ids: the ids of the classes to draw from, each once.
      images_per_class: number of images of each class: one number, or one for each class id.
      way, shot, query, count: n, k, q and T.
      start: index of the first episode; may be traced.
    Raises:
      ValueError: fewer classes than way, a class with fewer images than shot + query, repeated
        class ids, sizes below 1 (query below 0).
    """
    class_ids = np.asarray(class_ids)
    sizes = np.broadcast_to(np.asarray(images_per_class), class_ids.shape)
    _check(class_ids, sizes, way, shot, query, count)

    def one(index: Array) -> tuple[Array, Array, Array]:
        key_classes, key_images = jax.random.split(jax.random.fold_in(key, index))
        chosen = _without_replacement(key_classes, jnp.asarray([len(class_ids)]), way)[0]
        drawn = _without_replacement(key_images, jnp.asarray(sizes)[chosen], shot + query)
        return jnp.asarray(class_ids)[chosen], drawn[:, :shot], drawn[:, shot:]

    return Episodes(*jax.vmap(one)(start + jnp.arange(count)))


def _without_replacement(key: Array, sizes: Array, count: int) -> Array:
    """`count` distinct numbers of 0..size-1 in random order for each size, (len(sizes), count).

    A Fisher-Yates shuffle of which only the touched places are remembered: at step j the places
    j and p_j >= j are swapped, and the value at a place is that of the last step that touched it.
    O(count^2) an episode, whatever the size.
    """
    steps = jnp.arange(count)
    places = jax.random.randint(key, (len(sizes), count), steps, sizes[:, None])

    def value_at(place: Array, moved: Array, step: Array) -> Array:
        touched = (places == place[:, None]) & (steps < step)
        last = jnp.max(jnp.where(touched, steps, -1), axis=-1)
        found = jnp.take_along_axis(moved, jnp.maximum(last, 0)[:, None], axis=-1)[:, 0]
        return jnp.where(last >= 0, found, place)

    def swap(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        drawn, moved = carry
        here = jnp.broadcast_to(step, sizes.shape)
        drawn = drawn.at[:, step].set(value_at(places[:, step], moved, step))
        return drawn, moved.at[:, step].set(value_at(here, moved, step))

    zeros = jnp.zeros_like(places)
    return jax.lax.fori_loop(0, count, swap, (zeros, zeros))[0]


def _check(
    class_ids: np.ndarray, sizes: np.ndarray, way: int, shot: int, query: int, count: int
) -> None:
    if min(way, shot, count) < 1 or query < 0:
        raise ValueError(
            f"An episode needs way, shot and count >= 1 and query >= 0, not way={way}, "
            f"shot={shot}, query={query}, count={count}."
        )
    if class_ids.ndim != 1 or len(np.unique(class_ids)) != len(class_ids):
        raise ValueError("class_ids must be one list that names each class once.")
    if len(class_ids) < way:
        raise ValueError(f"way={way} needs as many classes; there are {len(class_ids)}.")
    if sizes.min() < shot + query:
        smallest = int(np.argmin(sizes))
        raise ValueError(
            f"shot + query = {shot + query} images are wanted of each class; class "
            f"{class_ids[smallest]} has {sizes[smallest]}."
        )


def draw_supports(
    seed: int, labels: np.ndarray, classes: int, *, shot: int, draws: int, pool: int
) -> np.ndarray:
    """Indices (draws, classes, shot) of support images, different ones within a draw.

    Args:
      labels: (m,) of the images. classes: numbered from 0.
      pool: images of a class that are drawn from, the first so many; 0 for all.
    Raises:
      UserError: a class with fewer images than `shot`.
    """
    rng = np.random.default_rng(seed)
    found = np.empty((draws, classes, shot), np.int64)
    for c in range(classes):
        rows = np.flatnonzero(labels == c)[: pool or None]
        if len(rows) < shot:
            raise UserError(
                f"class {c} has {len(rows)} images to draw support images from; {shot} are needed."
            )
        order = rng.permuted(np.tile(rows, (draws, 1)), axis=1)
        found[:, c] = order[:, :shot]
    return found
