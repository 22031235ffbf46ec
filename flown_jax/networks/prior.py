"""A flow whose source are networks of another data set, as in the paper (A.4.2, Figure 2).

Networks that were trained on another data set are made into networks for the zoos' sets: their
classifier is drawn anew, noise is added, and the autoencoder's encoder makes latents of them from
which the flow starts. The paper lets the flow's loss train the encoder that it starts and ends in:
the loss then falls, since latents can be moved towards each other, but the decoder knows nothing of
them. The mended form that A.4.2 suggests trains the autoencoder to reconstruct the prior, too, and
leaves it as it is from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from flown_jax.encoders.losses import vae_loss
from flown_jax.errors import UserError
from flown_jax.few_shot.codec import Standardiser
from flown_jax.models import many
from flown_jax.models.many import Logits
from flown_jax.networks import losses
from flown_jax.networks.losses import Batch, LossAndMetrics
from flown_jax.networks.space import ZooSpace
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import Entry, WeightSpec


@struct.dataclass
class Prior:
    """Networks of another data set as joint vectors, before anything is drawn.

    Made by `Prior.of`.

    Attributes:
      centre: (P, D), each network's tensors; in the place of its head the head's means.
      spread: (P, D), 0; in the place of its head the head's standard deviations.
    """

    centre: Array
    spread: Array

    @classmethod
    def of(cls, joint: JointSpace, spec: WeightSpec, weights: np.ndarray) -> Prior:
        """The prior of P networks.

        Means and standard deviations are those of all weights of a network's head, and those of
        all its biases: the head may have any number of classes. Channels of images that the
        networks do not have are zeros, and those that joint vectors do not have are left out.

        Args:
          spec: of the networks. weights: (P, D of the spec).
        Raises:
          UserError: networks that differ from the joint vectors' in more than these two things.
        """
        wide = joint.spec(joint.widest)
        heads = _head(wide)
        if [entry.name for entry in spec.entries] != [entry.name for entry in wide.entries]:
            raise UserError("the prior's networks have other tensors than those of the zoos.")
        centre = np.zeros((len(weights), wide.size), np.float32)
        spread = np.zeros_like(centre)
        for i, (own, target) in enumerate(zip(spec.entries, wide.entries, strict=True)):
            values, place = weights[:, spec.slices[own.name]], wide.slices[target.name]
            if own.name in heads:
                centre[:, place] = values.mean(1, keepdims=True)
                spread[:, place] = values.std(1, keepdims=True)
            else:
                centre[:, place] = _fitted(values, own, target, first=i == 0)
        return cls(jnp.asarray(centre), jnp.asarray(spread))


@partial(jax.jit, static_argnames="count")
def implant(key: Array, prior: Prior, noise: float, count: int) -> Array:
    """Joint vectors (count, D) of the prior, as the paper makes them.

    Each has the tensors of one of the networks, drawn by chance, a head of N(mean, std^2), and
    N(0, noise^2) on everything. A vector depends on the key and its number alone.
    """

    def draw(key: Array) -> Array:
        key_network, key_head, key_noise = jax.random.split(key, 3)
        row = jax.random.randint(key_network, (), 0, len(prior.centre))
        shape = prior.centre.shape[1:]
        head = prior.spread[row] * jax.random.normal(key_head, shape)
        return prior.centre[row] + head + noise * jax.random.normal(key_noise, shape)

    return jax.vmap(draw)(jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(count)))


@struct.dataclass
class PriorSource:
    """What makes latents of the prior, but for the encoder.

    Attributes:
      prior: the networks.
      space: of the zoos' weights. statistics: of their latents.
    """

    prior: Prior
    space: ZooSpace
    statistics: Standardiser

    def vectors(self, key: Array, noise: float, count: int) -> Array:
        """Standardised joint vectors (count, D)."""
        return (implant(key, self.prior, noise, count) - self.space.mean) / self.space.scale

    def encode(self, codec: nn.Module, encoder: Any, x: Array) -> Array:
        """Standardised posterior means (B, ...) of standardised joint vectors x (B, D).

        Args:
          encoder: variables, at least those of `encoder_part`.
        """
        return self.statistics.apply(codec.apply(encoder, x, method="encode").mode())

    def latents(self, key: Array, codec: nn.Module, encoder: Any, noise: float, n: int) -> Array:
        """n standardised latents of the prior, where the flow starts."""
        return self.encode(codec, encoder, self.vectors(key, noise, n))

    def mean_square(self, noise: float) -> Array:
        """Of the entries of `vectors`, over networks and draws."""
        prior = self.prior
        squares = (prior.centre - self.space.mean) ** 2 + prior.spread**2 + noise**2
        return jnp.mean(squares / self.space.scale**2)


def encoder_part(codec: nn.Module, variables: Any, size: int) -> Any:
    """The variables of a codec of vectors (D = size,) that its encoder uses."""

    def init(key: Array) -> Any:
        return codec.init(key, jnp.zeros((1, size)), method="encode")

    return _same_part(variables, jax.eval_shape(init, jax.random.key(0)))


def prior_flow_loss(
    velocity: nn.Module,
    codec: nn.Module,
    params: Any,
    encoder: Any,
    key: Array,
    batch: Batch,
    source: PriorSource,
    *,
    noise: float,
    trained: bool,
    **flow: Any,
) -> LossAndMetrics:
    """Conditional flow matching from latents of the prior to those of the zoos' networks.

    Args:
      params: of the velocity. encoder: variables of the codec, for both ends.
      batch: as in `losses.flow_loss`, but `latent` holds standardised joint vectors (B, D).
      noise: as in `implant`.
      trained: whether gradients flow into the encoder (the paper's form), or not (the mended one).
      flow: `path`, `coupling` and `condition_noise`, as in `losses.flow_loss`.
    """
    key_prior, key_flow = jax.random.split(key)
    if not trained:
        encoder = jax.lax.stop_gradient(encoder)
    x0 = source.latents(key_prior, codec, encoder, noise, len(batch["latent"]))
    x1 = source.encode(codec, encoder, batch["latent"])
    loss, metrics = losses.flow_loss(
        velocity, params, key_flow, {**batch, "latent": x1}, source=lambda key, shape: x0, **flow
    )
    return loss, {**metrics, "start_std": jnp.std(x0), "end_std": jnp.std(x1)}


def mended_codec_loss(
    codec: nn.Module,
    variables: Any,
    key: Array,
    batch: Batch,
    source: PriorSource,
    logits: Mapping[str, Logits],
    *,
    noise: float,
    count: int,
    weight: float,
    **loss: Any,
) -> LossAndMetrics:
    """`losses.codec_loss` plus the reconstruction of the prior.

    Args:
      source: the prior, and the space of the zoos; its statistics are not used.
      noise: as in `implant`. count: vectors of the prior a step.
      weight: of their reconstruction, which is measured in units of their mean square: their noise
        is many times the spread of the zoos' weights, and cannot be reconstructed.
      loss: as in `losses.codec_loss`.
    """
    key_zoos, key_prior, key_vae = jax.random.split(key, 3)
    value, metrics = losses.codec_loss(
        codec, variables, key_zoos, batch, source.space, logits, **loss
    )
    extra, aux = vae_loss(
        lambda x: codec.apply(variables, x, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key_vae,
        source.vectors(key_prior, noise, count),
        kl_weight=0.0,
        **{name: loss[name] for name in ("reconstruction", "sigma_in", "sigma_lat")},
    )
    extra = extra / source.mean_square(noise)
    value = value + weight * extra + loss["kl_weight"] * aux["kl"]
    return value, {**metrics, "prior_reconstruction": extra}


def train_mended_codec(
    context: StageContext,
    codec: nn.Module,
    source: PriorSource,
    batch_at: Callable[[int], Any],
    recipe: Recipe,
    *,
    seed: int,
    name: str,
    **loss: Any,
) -> Any:
    """Variables of an autoencoder of the zoos' weights and the prior's.

    Args:
      batch_at: as `training.codec_batches` makes it.
      name: of the run in its stage.
      loss: as in `mended_codec_loss`.
    """
    joint = source.space.joint
    logits = {name: many.logits(joint.spec(name).module()) for name in joint.names}
    variables = jax.jit(codec.init)(jax.random.key(seed), jnp.zeros((1, joint.size)))

    def loss_fn(params, key, batch, extra):
        value, metrics = mended_codec_loss(
            codec, params, key, batch, batch["frozen"], logits, **loss
        )
        return value, (metrics, extra)

    state = train(
        context, recipe, variables, loss_fn, batch_at, seed=seed, frozen=source, name=name
    )
    return averaged(state)


def train_recorded(
    context: StageContext,
    name: str,
    params: Any,
    loss: Callable[[Any, Array, Any], LossAndMetrics],
    batch_at: Callable[[int], Any],
    frozen: Any = None,
    *,
    recipe: Recipe,
    seed: int,
) -> tuple[Any, np.ndarray]:
    """Trained parameters (the average, where one is kept) and the loss of every step, (steps,).

    The losses are part of the run's state: one that was stopped and goes on still has them all.

    Args:
      name: of the run in its stage.
      loss: (params, key, batch) -> (loss, metrics), batch["frozen"] being `frozen`.
    """

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(params, key, batch)
        seen = extra["losses"].at[extra["step"]].set(jax.lax.stop_gradient(value))
        return value, (metrics, {"losses": seen, "step": extra["step"] + 1})

    extra = {"losses": jnp.zeros(recipe.steps), "step": jnp.zeros((), jnp.int32)}
    state = train(
        context, recipe, params, loss_fn, batch_at, seed=seed, extra=extra, frozen=frozen, name=name
    )
    assert state.extra is not None
    return averaged(state), np.asarray(state.extra["losses"])


def curves(found: Mapping[str, np.ndarray], points: int = 500) -> dict[str, np.ndarray]:
    """Curves of losses by step, with `steps`: means of equally many steps, at most `points`."""
    count = len(next(iter(found.values())))
    every = -(-count // points)
    count //= every
    means = {k: v[: count * every].reshape(count, every).mean(1) for k, v in found.items()}
    return {"steps": every * np.arange(1, count + 1), **means}


def _head(spec: WeightSpec) -> set[str]:
    """Names of the tensors of the last layer."""
    layer = spec.names[-1].rpartition(".")[0]
    return {name for name in spec.names if name.rpartition(".")[0] == layer}


def _fitted(values: np.ndarray, own: Entry, target: Entry, first: bool) -> np.ndarray:
    """Rows (P, size of the target) of rows (P, size of the own tensor)."""
    if own.shape == target.shape:
        return values
    same = own.shape[:1] + own.shape[2:] == target.shape[:1] + target.shape[2:]
    if not (first and same and len(own.shape) == len(target.shape)):
        raise UserError(
            f"the prior's networks have {own.name} {own.shape}, those of the zoos {target.shape}."
        )
    # The first kernel's inputs, axis 1 in PyTorch's layout, are the channels of the images.
    count = min(own.shape[1], target.shape[1])
    found = np.zeros((len(values), *target.shape), values.dtype)
    found[:, :, :count] = values.reshape(-1, *own.shape)[:, :, :count]
    return found.reshape(len(values), -1)


def _same_part(tree: Any, like: Any) -> Any:
    if not isinstance(like, Mapping):
        return tree
    return {name: _same_part(tree[name], part) for name, part in like.items()}
