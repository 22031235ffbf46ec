"""What a meta-model makes: weights of some kind, as standardised arrays and back.

A target space is a pytree with three methods. Whoever wants to restore, export and load meta-models
of it registers it by name and gives it a description; `MetaModel` then finds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.weights.spec import WeightSpec


@runtime_checkable
class TargetSpace(Protocol):
    """Weights to standardised targets x1 (B, ...) and back, and what it means that they work."""

    def normalise(self, weights: Any, context: Any) -> Array:
        """Targets x1 (B, ...) of weights.

        Args:
          context: what a target needs beside its weights, such as the class means that a head
            corrects, or which data set a network is for; a pytree.
        """

    def restore(self, x1: Array, context: Any) -> Any:
        """Weights of targets x1 (B, ...)."""

    def task_loss(self, weights: Any, batch: Mapping[str, Any]) -> Array:
        """How badly weights do on a batch's examples: a scalar, or an array whose mean it is.

        With a leading axis B, of the weights, a loss can weigh them one by one.
        """


@dataclasses.dataclass(frozen=True)
class Support:
    """A support set that a user shows.

    Attributes:
      features: (m, F), transformed.
      labels: (m,), classes in 0..n-1.
      classes: the n classes' names.
      condition: what the flow sees, named arrays (1, n, E).
      like: what the networks shall be like, where a target has kinds to choose from.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: tuple[Hashable, ...]
    condition: Mapping[str, Array]
    like: str | None = None


@dataclasses.dataclass(frozen=True)
class RunImages:
    """Images that generated networks are run on, as they came and as the encoder sees them.

    Attributes:
      model: the meta-model, with `features(images) -> (m, F)`, transformed.
      images: (m, H, W, C), uint8 or floats in [0, 1].
    """

    model: Any
    images: np.ndarray


class Target:
    """What `MetaModel` asks of a target space beside its three methods; a base class of defaults.

    A space that is exported and loaded has `build`, `describe` and `shape` of its own.
    """

    # Whether images of any size and channels are brought to what the networks take.
    resizes: ClassVar[bool] = False

    @classmethod
    def build(cls, description: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
        """The space of what `describe` gave."""
        return cls(**description, **arrays)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON values, with `way` where the number of classes is fixed, and arrays."""
        raise UserError(f"{type(self).__name__} is no target space that can be exported.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one x1."""
        raise UserError(f"{type(self).__name__} does not tell the shape of its targets.")

    @property
    def spec(self) -> WeightSpec:
        """What one x1, as a vector, is the weights of."""
        raise UserError(
            f"{self.what} of this kind cannot be read as graphs: codec.encoder must be 'vae'."
        )

    @property
    def affine(self) -> tuple[Array, Array] | None:
        """(mean, scale), each of `shape`, where x1 is (w - mean) / scale entry by entry."""
        return None

    @property
    def what(self) -> str:
        """Weights of this kind in words, for sentences."""
        return "weights"

    def unit(self, context: Any) -> Any:
        """The distance of two training weights' x1, a scalar."""
        return 1.0

    def classes(self, names: list[Hashable], fixed: bool, like: str | None) -> list[Hashable]:
        """The classes of a support set in the order in which the target has them.

        Args:
          names: in the order of their appearance, or of the user where that is `fixed`.
          like: as in `Support`.
        """
        if like is not None:
            raise UserError(f"like is {like!r}; it is for whole networks, not for {self.what}.")
        return names

    def context(self, support: Support) -> Any:
        """The context of one sample for a support set; arrays have a leading axis 1."""
        return {}

    def unshown(self, like: str | None) -> tuple[Any, tuple[Hashable, ...]]:
        """The context of one sample where nothing is shown, and its classes.

        Args:
          like: as in `Support`.
        """
        raise UserError(f"{self.what} of this meta-model need a support set.")

    def probabilities(self, weights: np.ndarray, context: Any, run: RunImages) -> np.ndarray:
        """Class probabilities (S, m, n) of S networks on m images."""
        raise UserError(f"{self.what} of this meta-model are no classifiers.")

    def state_dicts(self, weights: np.ndarray, context: Any) -> list[dict[str, np.ndarray]]:
        """Of S networks, with PyTorch's names and layouts."""
        return [{"weights": np.asarray(one)} for one in weights]

    def fits(self, weights: np.ndarray, way: int, context: Mapping[str, Any]) -> bool:
        """Whether stored weights (S, ...) of so many classes can be of this space."""
        return True

    def stored(self, context: Any) -> Mapping[str, Any]:
        """The context as a nested dict of arrays and JSON values; `restored` is the inverse."""
        return context

    def restored(self, context: Mapping[str, Any]) -> Any:
        """The context of what `stored` gave."""
        return context


_REGISTERED: dict[str, type] = {}


def register(kind: str, target: type) -> None:
    """Make a kind of target known by name to `build`; the same again changes nothing.

    Raises:
      ValueError: another class has the name.
    """
    if _REGISTERED.setdefault(kind, target) is not target:
        raise ValueError(f"the kind of target {kind!r} is {_REGISTERED[kind]}, not {target}.")


def registered(kind: str) -> Any:
    """The class of a kind of target.

    Raises:
      UserError: nobody registered it.
    """
    if kind not in _REGISTERED:
        raise UserError(
            f"the meta-model's kind of target is {kind!r}; known here are "
            f"{', '.join(sorted(_REGISTERED)) or 'none'}."
        )
    return _REGISTERED[kind]
