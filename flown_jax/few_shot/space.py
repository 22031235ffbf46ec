"""The coordinates in which linear heads are learned: the target space of heads.

A head is (n, F + 1), a row [weights | bias] a class. Two heads that differ by the same row added
to every class classify alike, so the class average is removed; and a head can be learned as a
correction to a class-mean head, which few classes cannot overfit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.errors import UserError
from flown_jax.meta_model.targets import RunImages, Support, Target, register
from flown_jax.models import heads as linear
from flown_jax.weights.spec import Entry, WeightSpec

# What a head needs beside its weights: `prototypes` (..., n, F), class means of the support, and
# `shot`, images a class behind each, scalar or (...).
HeadContext = Mapping[str, Array]


@struct.dataclass
class HeadSpace(Target):
    """Heads to and from normalised targets x1.

    Attributes:
      base_scales: (S,) alpha of the base head alpha (mu_c / |mu_c| - average over classes) for
        each number of support images a class in `shots`; 0 for no base head.
      scale: (F + 1,) divisor of each column.
      shots: (S,) ascending; between them alpha is interpolated over the logarithm.
      centred: whether the class average is removed.
      sharpness: (S,) what logits are multiplied by in task losses, for each of `shots`: classes
        that the image encoder was trained on are easier to tell apart than new ones, and a head
        that is calibrated on them is too sure of itself on others. None for 1.
      way: n of the training tasks.
    """

    base_scales: Array
    scale: Array
    shots: tuple[int, ...] = struct.field(pytree_node=False)
    centred: bool = struct.field(pytree_node=False)
    sharpness: Array | None = None
    way: int = struct.field(pytree_node=False, default=0)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, F + 1) of one target."""
        return self.way, len(self.scale)

    @property
    def spec(self) -> WeightSpec:
        """As of `head_spec`."""
        return head_spec(self.way, len(self.scale) - 1)

    @property
    def what(self) -> str:
        """Weights of this kind in words."""
        return f"heads of {len(self.scale)} columns"

    def base(self, context: HeadContext) -> Array:
        """Base heads (..., n, F + 1) of class means of the support."""
        prototypes = context["prototypes"]
        unit = prototypes / jnp.maximum(jnp.linalg.norm(prototypes, axis=-1, keepdims=True), 1e-6)
        weights = self._of_shot(self.base_scales, context["shot"]) * _without_average(unit)
        return jnp.concatenate([weights, jnp.zeros_like(weights[..., :1])], axis=-1)

    def normalise(self, weights: Array, context: HeadContext) -> Array:
        """Targets x1 of heads, both (..., n, F + 1)."""
        corrections = weights - self.base(context)
        return (_without_average(corrections) if self.centred else corrections) / self.scale

    def restore(self, x1: Array, context: HeadContext) -> Array:
        """Heads of targets, both (..., n, F + 1): the inverse, up to the class average."""
        corrections = x1 * self.scale
        average = _without_average(corrections) if self.centred else corrections
        return self.base(context) + average

    def task_loss(self, weights: Array, batch: Mapping[str, Any]) -> Array:
        """Cross-entropies (B, n, q) of query images under their task's head, nats.

        Args:
          weights: heads (B, n, F + 1).
          batch: `context` of the heads, `query` (B, n, q, F).
        """
        heads = self.sharpened(weights, batch["context"]["shot"])
        return -of_true_class(query_log_probs(heads, batch["query"]))

    def sharpened(self, heads: Array, shot: Array | float) -> Array:
        """The heads (..., n, F + 1) as task losses on training classes take them; see `sharpness`.

        Args:
          shot: images a class, scalar or (...).
        """
        return heads if self.sharpness is None else self._of_shot(self.sharpness, shot) * heads

    def _of_shot(self, values: Array, shot: Array | float) -> Array:
        """One of (S,) values for each shot, between them by the logarithm, (..., 1, 1)."""
        known = jnp.log(jnp.asarray(self.shots, values.dtype))
        return jnp.interp(jnp.log(jnp.asarray(shot, values.dtype)), known, values)[..., None, None]

    @classmethod
    def build(cls, description: Mapping[str, Any], arrays: Mapping[str, Any]) -> HeadSpace:
        """The space of what `describe` gave."""
        shots = tuple(description["shots"])
        return cls(**arrays, shots=shots, centred=description["centred"], way=description["way"])

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON values and arrays."""
        arrays = {"base_scales": self.base_scales, "scale": self.scale}
        if self.sharpness is not None:
            arrays["sharpness"] = self.sharpness
        return {"way": self.way, "shots": list(self.shots), "centred": self.centred}, arrays

    def classes(self, names: list[Hashable], fixed: bool, like: str | None) -> list[Hashable]:
        """The names as they are: a head has any classes in any order.

        Raises:
          UserError: `like`, which is for whole networks, or a single class.
        """
        if len(names) < 2:
            raise UserError("the support set has one class; there is nothing to tell apart.")
        return super().classes(names, fixed, like)

    def context(self, support: Support) -> HeadContext:
        """Class means of a support set, and its images a class on average."""
        way = len(support.classes)
        means = np.stack([support.features[support.labels == c].mean(0) for c in range(way)])
        shot = jnp.asarray(len(support.labels) / way, jnp.float32)
        return {"prototypes": jnp.asarray(means)[None], "shot": shot[None]}

    def probabilities(
        self, weights: np.ndarray, context: HeadContext, run: RunImages
    ) -> np.ndarray:
        """Class probabilities (S, m, n) of heads (S, n, F + 1)."""
        features = run.model.features(run.images)
        scores = linear.logits(jnp.asarray(weights), jnp.asarray(features)[None])
        return np.asarray(jax.nn.softmax(scores))

    def state_dicts(self, weights: np.ndarray, context: HeadContext) -> list[dict[str, np.ndarray]]:
        """`weight` (n, F) and `bias` (n,) of each head, those of a torch Linear."""
        return [
            {"weight": np.ascontiguousarray(h[:, :-1]), "bias": np.ascontiguousarray(h[:, -1])}
            for h in np.asarray(weights)
        ]

    def fits(self, weights: np.ndarray, way: int, context: Mapping[str, Any]) -> bool:
        """Whether these are heads (S, n, F + 1) on the same features."""
        return np.shape(weights)[1:] == (way, len(self.scale))


register("heads", HeadSpace)


def head_spec(way: int, width: int) -> WeightSpec:
    """A head (n, F + 1) as a network of one layer, in the order of `models.heads.to_vector`."""
    weight = Entry("head.weight", "params/head/kernel", (way, width))
    return WeightSpec((weight, Entry("head.bias", "params/head/bias", (way,))))


def fit_head_space(
    heads: Sequence[Array],
    prototypes: Sequence[Array],
    *,
    shots: Sequence[int],
    base_scales: Sequence[float],
    centred: bool,
    standardise: bool,
    sharpness: Sequence[float] | None = None,
) -> HeadSpace:
    """The space in which these heads have unit mean square in every column.

    Args:
      heads, prototypes: for each shot those of its training tasks, (T, n, F + 1) and (T, n, F).
      shots: images a class, ascending.
      base_scales: alpha of the base head at each; 0 for none.
      centred: remove the class average.
      standardise: divide by the root mean square of each column; else by 1.
      sharpness: see `HeadSpace`.
    """
    way, width = heads[0].shape[-2:]
    scales = jnp.asarray(base_scales, heads[0].dtype)
    sharp = None if sharpness is None else jnp.asarray(sharpness, heads[0].dtype)
    space = HeadSpace(scales, jnp.ones(width), tuple(shots), centred, sharp, way)
    if not standardise:
        return space
    squares = [
        jnp.mean(space.normalise(h, {"prototypes": p, "shot": jnp.asarray(k)}) ** 2, axis=(0, 1))
        for h, p, k in zip(heads, prototypes, shots, strict=True)
    ]
    size = jnp.sqrt(jnp.mean(jnp.stack(squares), axis=0))
    # A column that is always zero (a fixed bias) stays as it is.
    return dataclasses.replace(space, scale=jnp.where(size > 1e-8, size, 1.0))


def query_log_probs(heads: Array, query: Array) -> Array:
    """Log-probabilities (..., n, q, n) of queries (..., n, q, F) under heads (..., n, F + 1)."""
    flat = query.reshape(*query.shape[:-3], -1, query.shape[-1])
    log_probs = jax.nn.log_softmax(linear.logits(heads, flat))
    return log_probs.reshape(*log_probs.shape[:-2], *query.shape[-3:-1], -1)


def of_true_class(log_probs: Array) -> Array:
    """The entry (..., n, q) of the true class out of log-probabilities (..., n, q, n)."""
    return jnp.einsum("...cqc->...cq", log_probs)


def _without_average(rows: Array) -> Array:
    return rows - rows.mean(axis=-2, keepdims=True)
