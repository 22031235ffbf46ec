"""Which data set's networks came out, for each set that was shown."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.fine_tuning import accuracy


def came_out(
    target: NetworkSpace,
    vectors: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    images: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, list[str]]:
    """The data set that each sample is a network of, for each set that was shown.

    It is the set on whose images the network comes nearest to the training networks' accuracy, each
    time read as a network of that set. Distances of weights would not tell: what lies between the
    members of a zoo is far from all of them.

    Args:
      vectors: standardised joint vectors (S, D) of the samples, by the set that was shown.
      weights: training networks (N, D of the set) of each set.
      images: of each set, images (n, H, W, C), preprocessed, and labels (n,) that its networks were
        not trained on.
    """
    shares: dict[str, list[np.ndarray]] = {shown: [] for shown in vectors}
    for name, (pictures, labels) in images.items():
        spec = target.joint.spec(name)
        original = accuracy(spec, weights[name], pictures, labels).mean()
        for shown, samples in vectors.items():
            networks = np.asarray(target.restore(jnp.asarray(samples), OfSet(name)))
            shares[shown].append(accuracy(spec, networks, pictures, labels) / original)
    names = list(images)
    return {shown: [names[i] for i in np.stack(found).argmax(0)] for shown, found in shares.items()}
