"""Networks of another data set as joint vectors of the zoos': a prior (paper, A.4.2).

Networks that were trained on another data set are made into networks for the zoos' sets: their
classifier is drawn anew, and noise is added.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.errors import UserError
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
