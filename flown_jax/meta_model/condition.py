"""The condition y of a task or a data set: what is known of each class from its support images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from flown_jax.conditioning import CAML, SlotStandardizer, class_embeddings, class_means


@struct.dataclass
class Conditioner:
    """The condition of a task from the features of its support images.

    Attributes:
      entries: which of `features` (class means of the image features), `shots` (log2 of the
        number of images a class, which a mean does not tell) and `caml` (class embeddings of
        CAML with the support images in the query role, standardised per slot).
      statistics: of the class embeddings over training tasks; None without CAML.
      variables: of CAML; None without it.
      caml: the module; None without it.
    """

    statistics: Any
    variables: Any
    caml: CAML | None = struct.field(pytree_node=False)
    entries: tuple[str, ...] = struct.field(pytree_node=False)

    def __call__(self, support: Array, chunk: int = 250) -> dict[str, Array]:
        """Named arrays (T, n, E) for support features (T, n, k, F). No query image enters."""
        condition = {}
        if "features" in self.entries:
            condition["features"] = support.mean(axis=2)
        if "shots" in self.entries:
            condition["shots"] = jnp.full((*support.shape[:2], 1), jnp.log2(support.shape[2]))
        if "caml" in self.entries and self.caml is not None:
            embeddings = class_embeddings(
                self.caml, self.variables, support, query_source="support", chunk=chunk
            )
            condition["caml"] = self.statistics.apply(embeddings)
        return condition

    def of_images(self, features: Array, labels: Array, way: int) -> dict[str, Array]:
        """The condition of one task whose classes may have different numbers of images.

        Args:
          features: (m, F) of the support images. labels: (m,) classes in 0..way-1.
        Returns:
          Named arrays (1, way, E).
        """
        condition = {}
        if "features" in self.entries:
            condition["features"] = class_means(features, labels, way)[None]
        if "shots" in self.entries:
            condition["shots"] = jnp.log2(jnp.bincount(labels, length=way))[None, :, None]
        if "caml" in self.entries and self.caml is not None:
            tokens = self.caml.apply(
                self.variables,
                features,
                labels,
                features,
                jnp.arange(way),
                method="query_embeddings",
            )
            means = class_means(tokens, labels, way)
            condition["caml"] = self.statistics.apply(means)[None]
        return condition


def fit_conditioner(
    entries: tuple[str, ...], supports: Iterable[Array], caml: CAML | None, variables: Any
) -> Conditioner:
    """The conditioner, with slot statistics over training tasks.

    Args:
      supports: support features (T, n, k, F) of training tasks, an array for each k; not looked
        at without CAML.
      caml, variables: the network, which nothing but the entry `caml` needs.
    """
    if "caml" not in entries or caml is None:
        return Conditioner(None, None, None, entries)
    embed = jax.jit(lambda v, s: class_embeddings(caml, v, s, query_source="support", chunk=250))
    embeddings = [embed(variables, support) for support in supports]
    return Conditioner(SlotStandardizer.fit(jnp.concatenate(embeddings)), variables, caml, entries)


def noisy_condition(
    key: Array, condition: Mapping[str, Array], scale: float, shot: Array | float = 1
) -> dict[str, Array]:
    """The condition with independent normal noise of deviation scale / sqrt(shot) on its entries.

    Images are what varies: the noise of a class mean falls with their number, and the entry
    `shots`, which counts them, gets none.

    Args:
      condition: named arrays (B, n, E).
      shot: images a class, scalar or (B,).
    """
    names = sorted(condition)
    keys = jax.random.split(key, len(names))
    size = scale / jnp.sqrt(jnp.asarray(shot, jnp.float32))[..., None, None]
    return {
        name: condition[name]
        if name == "shots"
        else condition[name] + size * jax.random.normal(k, condition[name].shape)
        for name, k in zip(names, keys, strict=True)
    }
