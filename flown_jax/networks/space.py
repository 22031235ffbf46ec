"""Networks of the zoos of several data sets, or the same part of them, as one target space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.evaluation.networks import log_probabilities, network_logits
from flown_jax.meta_model.targets import RunImages, Support, Target, register
from flown_jax.models import layout
from flown_jax.networks.conditions import nearest_set
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import distances


@struct.dataclass
class OfSet:
    """The context of networks: which data set they are for; a pytree without leaves.

    Attributes:
      name: of the data set.
    """

    name: str = struct.field(pytree_node=False)


@struct.dataclass
class NetworkSpace(Target):
    """Joint weight vectors, standardised: minus their mean, over one scale for each tensor.

    Attributes:
      mean: (D,), of the training networks of all data sets.
      scale: (D,), root mean square of a tensor's deviations, the same for all of its values.
      spacing: of each data set, mean distance of two training networks, standardised; 1 where
        it would be 0.
      joint: where each set's weights lie.
      centres: of each data set, the mean of its known conditions, named arrays (1, n, E): what
        tells which set a user shows; None while it is trained.
      class_names: of each data set, as (name, names) pairs.
      bases: of each data set, the variables around vectors that are a part of a network, or that
        have no running statistics; None where vectors are the whole of it.
    """

    mean: Array
    scale: Array
    spacing: dict[str, Array]
    joint: JointSpace = struct.field(pytree_node=False)
    centres: dict[str, dict[str, Array]] | None = None
    class_names: tuple[tuple[str, tuple[str, ...]], ...] = struct.field(
        pytree_node=False, default=()
    )
    bases: dict[str, Any] | None = None

    resizes: ClassVar[bool] = True
    what: ClassVar[str] = "whole networks"

    @classmethod
    def fit(
        cls,
        joint: JointSpace,
        weights: Mapping[str, np.ndarray],
        bases: Mapping[str, Any] | None = None,
    ) -> NetworkSpace:
        """The space of training networks.

        Args:
          weights: (N, D of the set) of each data set. bases: see the attribute.
        """
        parts = {name: joint.embed(name, w).astype(np.float64) for name, w in weights.items()}
        vectors = np.concatenate(list(parts.values()))
        mean = vectors.mean(0)
        scale = np.ones_like(mean)
        for place in joint.slices.values():
            rms = np.sqrt(np.mean((vectors[:, place] - mean[place]) ** 2))
            scale[place] = rms if rms > 0 else 1.0
        spacing = {name: _mean_distance(part / scale) for name, part in parts.items()}
        return cls(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(scale, jnp.float32),
            {name: jnp.asarray(value, jnp.float32) for name, value in spacing.items()},
            joint,
            bases=None if bases is None else dict(bases),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,) of one target."""
        return (self.joint.size,)

    @property
    def spec(self) -> WeightSpec:
        """Of the joint vectors: the widest set's."""
        return self.joint.spec(self.joint.widest)

    @property
    def affine(self) -> tuple[Array, Array]:
        """(mean, scale), each (D,)."""
        return self.mean, self.scale

    def normalise(self, weights: Array, context: OfSet) -> Array:
        """What the autoencoder takes, (N, D), of a set's weights (N, D of the set)."""
        return (jnp.asarray(self.joint.embed(context.name, weights)) - self.mean) / self.scale

    def restore(self, x1: Array, context: OfSet) -> Array:
        """A set's weights (..., D of the set) of standardised vectors x1 (..., D)."""
        return self.joint.extract(context.name, x1 * self.scale + self.mean)

    def unit(self, context: OfSet) -> Array:
        """The mean distance of two training networks of a set, standardised."""
        return self.spacing[context.name]

    def task_loss(self, weights: Array, batch: Mapping[str, Any]) -> Array:
        """Cross-entropies (M, b) of networks on the same images, nats.

        Args:
          weights: (M, D of the set).
          batch: `context`, `images` (b, H, W, C), preprocessed, and `labels` (b,).
        """
        spec, base = self.network(batch["context"])
        scores = network_logits(spec, weights, batch["images"], base)
        targets = jnp.broadcast_to(batch["labels"], scores.shape[:2])
        return optax.softmax_cross_entropy_with_integer_labels(scores, targets)

    @classmethod
    def build(cls, description: Mapping[str, Any], arrays: Mapping[str, Any]) -> NetworkSpace:
        """The space of what `describe` gave."""
        sets = description["sets"]
        joint = JointSpace.of({n: WeightSpec.from_json(of["spec"]) for n, of in sets.items()})
        names = tuple((name, tuple(of["class_names"])) for name, of in sets.items())
        return cls(**arrays, joint=joint, class_names=names)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON values and arrays."""
        names = dict(self.class_names)
        sets = {
            name: {"spec": spec.to_json(), "class_names": list(names.get(name, ()))}
            for name, spec in self.joint.specs
        }
        arrays = {"mean": self.mean, "scale": self.scale, "spacing": self.spacing}
        optional = {"centres": self.centres, "bases": self.bases}
        arrays |= {name: value for name, value in optional.items() if value is not None}
        return {"way": self.way, "sets": sets}, arrays

    def network(self, context: OfSet) -> tuple[WeightSpec, Any]:
        """Spec and base of a set's networks."""
        base = None if self.bases is None else self.bases[context.name]
        return self.joint.spec(context.name), base

    @property
    def way(self) -> int:
        """Number of classes that a network tells apart."""
        return int(self.spec.sizes_dict["num_classes"])

    def classes(self, names: list[Hashable], fixed: bool, like: str | None) -> list[Hashable]:
        """The classes in the order of the networks' outputs.

        Labels are class numbers from 0, or the names of a data set's classes; other names only in
        the user's own order.

        Raises:
          UserError: an unknown `like`, labels that tell no order, or a class without an image.
        """
        if like is not None:
            self.joint.spec(like)
        wanted: list[list[Hashable]] = [list(range(self.way))]
        wanted += [[*of] for name, of in self.class_names if like in (None, name)]
        if fixed:
            wanted = [names]
        for classes in wanted:
            if all(name in classes for name in names):
                if missing := [c for c in classes if c not in names]:
                    raise UserError(
                        f"class {missing[0]!r} has no image in the support set; whole networks "
                        f"tell {len(classes)} classes apart, and each must be shown."
                    )
                return classes
        raise UserError(
            f"label {names[0]!r} is no class number below {self.way} and no name of a known data "
            "set's class: give class_names, all classes in the order of the networks' outputs."
        )

    def context(self, support: Support) -> OfSet:
        """The data set that the networks are for: the one named, or the nearest to what is shown.

        Raises:
          UserError: an unknown set, or none that could be recognised.
        """
        if support.like is not None:
            return OfSet(support.like)
        if self.centres is None:
            raise UserError("this meta-model knows no conditions of its data sets: give `like`.")
        banks = jax.tree.map(np.asarray, self.centres)
        return OfSet(nearest_set(jax.tree.map(np.asarray, support.condition), banks)[0])

    def unshown(self, like: str | None) -> tuple[OfSet, tuple[Hashable, ...]]:
        """The set that is named, or the only one, and its classes in the order of the outputs.

        Raises:
          UserError: an unknown set, or none is named of several.
        """
        if like is None and len(self.joint.names) > 1:
            raise UserError(
                f"like names the data set whose networks are wanted: {', '.join(self.joint.names)}."
            )
        name = self.joint.names[0] if like is None else like
        self.joint.spec(name)
        return OfSet(name), dict(self.class_names).get(name) or tuple(range(self.way))

    def probabilities(self, weights: np.ndarray, context: OfSet, run: RunImages) -> np.ndarray:
        """Class probabilities (S, m, n) of networks (S, D of the set) on images of any size."""
        (spec, base), images = self.network(context), run.images
        if images.dtype != np.uint8:
            images = np.round(255 * images).astype(np.uint8)
        inputs = Preprocessing.from_dict(spec.inputs_dict).apply(images)
        return np.exp(log_probabilities(spec, weights, inputs, base))

    def state_dicts(self, weights: np.ndarray, context: OfSet) -> list[dict[str, np.ndarray]]:
        """Of each whole network, as a torch module of the same architecture loads them."""
        spec, base = self.network(context)
        names = spec.module().state_dict_names()
        found = []
        for one in np.asarray(weights):
            leaves = dict(layout.leaves(spec.unflatten(one, base)))
            tensors = {n: layout.to_torch(path, leaves[path]) for n, path in names.items()}
            found.append({name: np.array(t, order="C") for name, t in tensors.items()})
        return found

    def fits(self, weights: np.ndarray, way: int, context: Any) -> bool:
        """Whether these are vectors (S, D) of a set's networks."""
        known = context.name in self.joint.names and way == self.way
        return known and np.shape(weights)[1:] == (self.joint.spec(context.name).size,)

    def stored(self, context: OfSet) -> dict[str, Any]:
        """The context as JSON values."""
        return {"set": context.name}

    def restored(self, context: Mapping[str, Any]) -> OfSet:
        """The context of what `stored` gave."""
        return OfSet(context["set"])


register("networks", NetworkSpace)


def _mean_distance(x: np.ndarray) -> float:
    """Of two rows of x (N, D); 1 where there are no two or all are equal: others divide by it."""
    count = len(x)
    return float(distances(x).sum() / max(count * (count - 1), 1)) or 1.0
