"""CNNs for images of one and of three channels in one vector space.

Networks that differ in the channels of their images only have the same tensors but for the first
kernel. In the joint space a vector is that of the network with most channels; one of fewer is put
into its first channels, and the others are zero. Which channels of a vector are read is said by
the images that it is run on.

    joint = JointSpace.of({"mnist": grey_spec, "cifar10": colour_spec})
    v = joint.embed("mnist", weights)        # (N, D)
    joint.extract("mnist", v)                # (N, D of mnist), the weights again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.weights.spec import Entry, WeightSpec


@dataclass(frozen=True)
class JointSpace:
    """Vectors of several specs as vectors of one length.

    Made by `JointSpace.of`.

    Attributes:
      specs: of each data set by name, as (name, spec) pairs.
      widest: the name of a set whose vectors are the joint ones.
    """

    specs: tuple[tuple[str, WeightSpec], ...]
    widest: str

    @classmethod
    def of(cls, specs: Mapping[str, WeightSpec]) -> JointSpace:
        """The joint space of some specs.

        Raises:
          UserError: no spec, networks that differ in more than the channels of their images,
            the activation and the preprocessing, or other parts of networks.
        """
        if not specs:
            raise UserError("a joint space needs the spec of one data set at least.")
        widest = max(specs, key=lambda name: specs[name].size)
        for name, spec in specs.items():
            if (reason := _misfit(spec, specs[widest])) is not None:
                raise UserError(
                    f"the networks of {name} and {widest} have no joint vector space: {reason}."
                )
        return cls(tuple(specs.items()), widest)

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets, in their order."""
        return tuple(name for name, _ in self.specs)

    @property
    def size(self) -> int:
        """D, the length of a joint vector."""
        return self.spec(self.widest).size

    @property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in a joint vector."""
        return self.spec(self.widest).slices

    def spec(self, name: str) -> WeightSpec:
        """The spec of a data set.

        Raises:
          UserError: there is no such set.
        """
        found = dict(self.specs)
        if name not in found:
            raise UserError(f"there is no data set {name!r}; those here are {', '.join(found)}.")
        return found[name]

    def places(self, name: str) -> np.ndarray:
        """Where in a joint vector the values of a set's vector lie, (D of the set,)."""
        spec, widest = self.spec(name), self.spec(self.widest)
        parts, start = [], 0
        for own, wide in zip(spec.entries, widest.entries, strict=True):
            index = np.arange(start, start + wide.size).reshape(wide.shape)
            parts.append(index[tuple(slice(0, n) for n in own.shape)].reshape(-1))
            start += wide.size
        return np.concatenate(parts)

    def embed(self, name: str, weights: Any) -> Any:
        """Joint vectors (N, D) of a set's vectors (N, D of the set), NumPy's of NumPy's.

        Raises:
          UserError: vectors of another length.
        """
        weights = weights if isinstance(weights, Array) else np.asarray(weights)
        if weights.ndim != 2 or weights.shape[1] != self.spec(name).size:
            raise UserError(
                f"weights of {name} must be (N, {self.spec(name).size}), not {weights.shape}."
            )
        if isinstance(weights, Array):
            zeros = jnp.zeros((len(weights), self.size), weights.dtype)
            return zeros.at[:, self.places(name)].set(weights)
        joint = np.zeros((len(weights), self.size), weights.dtype)
        joint[:, self.places(name)] = weights
        return joint

    def extract(self, name: str, joint: Array) -> Array:
        """A set's vectors (..., D of the set) of joint ones (..., D).

        Raises:
          UserError: vectors of another length.
        """
        if joint.shape[-1] != self.size:
            raise UserError(f"joint vectors have {self.size} values, not {joint.shape[-1]}.")
        return jnp.asarray(joint)[..., self.places(name)]


def _misfit(spec: WeightSpec, widest: WeightSpec) -> str | None:
    """Why a spec's vectors are no part of those of the widest, or None."""
    if spec.partial or widest.partial:
        # Of parts, only the same ones.
        same = spec.partial and widest.partial and spec.entries == widest.entries
        return None if same else "they are parts of networks, and not the same ones"
    if spec.model != widest.model:
        return f"their models are {spec.model} and {widest.model}"
    for i, (own, wide) in enumerate(zip(spec.entries, widest.entries, strict=False)):
        if own.name != wide.name or not _part(own, wide, first=i == 0):
            return f"{own.name} {own.shape} is no part of {wide.name} {wide.shape}"
    if len(spec.entries) != len(widest.entries):
        return f"they have {len(spec.entries)} and {len(widest.entries)} tensors"
    return None


def _part(own: Entry, wide: Entry, first: bool) -> bool:
    if not first:
        return own.shape == wide.shape
    # The first kernel's inputs, axis 1 in PyTorch's layout, are the channels of the images.
    return (
        len(own.shape) == len(wide.shape) >= 2
        and own.shape[1] <= wide.shape[1]
        and (own.shape[0], *own.shape[2:]) == (wide.shape[0], *wide.shape[2:])
    )
