"""Heads from a condition: a flow (or a rival) in the latent space of a weight autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from flown_jax.conditioning import CAML, class_embeddings, class_means
from flown_jax.few_shot.codec import HeadCodec, Standardiser
from flown_jax.few_shot.space import HeadSpace
from flown_jax.flow import diffusion, sampling

Condition = Mapping[str, Array]


@struct.dataclass
class LatentSpace:
    """Standardised latents to and from heads: space, autoencoder and statistics, all frozen.

    Attributes:
      space: normalisation of heads.
      variables: of the codec.
      statistics: of the codec's latents.
      codec: the module.
    """

    space: HeadSpace
    variables: Any
    statistics: Standardiser
    codec: HeadCodec = struct.field(pytree_node=False)

    def encode(self, heads: Array, base: Array) -> Array:
        """Standardised latents (B, ...) of heads (B, n, F + 1), by the posterior's mean.

        Args:
          base: base heads (B, n, F + 1) of the same tasks, as `space.base` makes them.
        """
        x1 = self.space.normalise(heads, base)
        posterior = self.codec.apply(self.variables, x1, method="encode")
        return self.statistics.apply(posterior.mode())

    def decode(self, z: Array, base: Array) -> Array:
        """Heads (B, n, F + 1) of standardised latents z (B, ...) and base heads (B, n, F + 1)."""
        latent = self.statistics.invert(z)
        x1 = self.codec.apply(self.variables, latent, method="decode")
        return self.space.restore(x1, base)


@struct.dataclass
class Conditioner:
    """The condition y of a task from the features of its support images.

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


def sample_flow(
    key: Array,
    velocity: nn.Module,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    base: Array,
    *,
    source: Callable[[Array, tuple[int, ...]], Array],
    latent_shape: tuple[int, ...],
    samples: int,
    solver: str,
    steps: int,
    temperature: float | Array,
) -> tuple[Array, Array]:
    """S heads a task, drawn from the flow, and the mean number of evaluations of each.

    Args:
      key: of the source; sample s of a task does not depend on how many are drawn.
      velocity, params: the network.
      condition: named arrays (T, n, E). base: base heads (T, n, F + 1).
      source: x0 = source(key, shape). latent_shape: of one latent.
      samples: S. solver, steps: as in `flow.sampling.sample`.
      temperature: factor on the source.
    Returns:
      heads (S, T, n, F + 1), nfe.
    """

    def draw(key: Array) -> tuple[Array, Array]:
        x0 = temperature * source(key, (base.shape[0], *latent_shape))
        solution = sampling.sample(
            as_velocity(velocity, params), x0, condition, solver=solver, steps=steps
        )
        return latents.decode(solution.x1, base), jnp.mean(jnp.asarray(solution.nfe))

    heads, nfe = jax.lax.map(draw, sample_keys(key, samples))
    return heads, nfe.mean()


def sample_diffusion(
    key: Array,
    network: nn.Module,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    base: Array,
    *,
    schedule: diffusion.Schedule,
    latent_shape: tuple[int, ...],
    samples: int,
    steps: int,
) -> tuple[Array, Array]:
    """S heads a task, drawn from a DDPM in the same latent space; as `sample_flow`."""

    def draw(key: Array) -> tuple[Array, Array]:
        key_start, key_steps = jax.random.split(key)
        start = jax.random.normal(key_start, (base.shape[0], *latent_shape))
        solution = diffusion.sample_ddpm(
            as_noise_model(network, params, schedule),
            key_steps,
            start,
            condition,
            schedule,
            steps=steps,
        )
        return latents.decode(solution.x1, base), jnp.asarray(solution.nfe)

    heads, nfe = jax.lax.map(draw, sample_keys(key, samples))
    return heads, nfe.mean()


def regress(
    network: nn.Module,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    base: Array,
    latent_shape: tuple[int, ...],
) -> Array:
    """One head a task by regression: the same network at x = 0, t = 0 gives the latent.

    Returns:
      heads (T, n, F + 1).
    """
    zeros = jnp.zeros((base.shape[0], *latent_shape))
    return latents.decode(network.apply(params, zeros, jnp.zeros(()), condition), base)


def as_velocity(module: nn.Module, params: Any) -> Callable[[Array, Array, Any], Array]:
    """velocity(x, t, condition) of a module and its variables."""
    return lambda x, t, condition: module.apply(params, x, t, condition)


def as_noise_model(
    module: nn.Module, params: Any, schedule: diffusion.Schedule
) -> Callable[[Array, Array, Any], Array]:
    """eps(x, t, condition) for integer t: the network sees t / T, as the flow's sees [0, 1]."""
    return lambda x, t, condition: module.apply(params, x, t / len(schedule), condition)


def sample_keys(key: Array, samples: int) -> Array:
    """A key (samples,) for each sample, the same however many there are."""
    return jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(samples))
