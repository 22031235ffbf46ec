"""Several zoos with their units in the order of one reference.

Seeds do not share an order of their hidden units, and neither do data sets. Every zoo is aligned to
one of its networks (then to the mean of its aligned activations, see `weights.alignment`); that
network was aligned before to the one of the first zoo, both seeing the same images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flown_jax.errors import UserError
from flown_jax.weights.alignment import Aligned, Reference, activations, align, apply_reference
from flown_jax.weights.joint import JointSpace


@dataclass(frozen=True, eq=False)
class ZooImages:
    """Images on which units are compared.

    Attributes:
      own: (B, H, W, C) of the data set, preprocessed for its networks.
      common: (B', H', W', C) of the first data set, preprocessed for this one's networks.
    """

    own: np.ndarray
    common: np.ndarray


def align_zoos(
    joint: JointSpace,
    weights: Mapping[str, np.ndarray],
    references: Mapping[str, int],
    images: Mapping[str, ZooImages],
    *,
    rounds: int = 2,
) -> dict[str, Aligned]:
    """The training networks of every zoo with their units in one order.

    Args:
      weights: (N, D of the set) of each data set, the first of which leads.
      references: the row of each set's reference network, such as the best on validation images.
      images: of each set.
      rounds: as in `weights.alignment.align`.
    Raises:
      UserError: as `align`; images of another number of pixels than the first set's.
    """
    found: dict[str, Aligned] = {}
    first = next(iter(weights))
    spec = joint.spec(first)
    leader = weights[first][references[first]]
    for name, vectors in weights.items():
        reference = vectors[references[name]]
        if name != first:
            common = images[name].common
            if common.shape[:3] != images[first].common.shape[:3]:
                raise UserError(
                    f"the networks of {name} take images {common.shape[1:]} and those of {first} "
                    f"{images[first].common.shape[1:]}: units cannot be compared."
                )
            target = activations(spec, leader[None], images[first].common)
            own = Reference(common, tuple(layer[0] for layer in target))
            reference = apply_reference(joint.spec(name), reference[None], own).weights[0]
        found[name] = align(
            joint.spec(name), vectors, images[name].own, reference=reference, rounds=rounds
        )
        if name == first:
            # What the others are matched to has the order of the first zoo as it is aligned now.
            leader = found[first].weights[references[first]]
    return found
