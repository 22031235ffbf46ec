"""Distances between CNNs that do not depend on the order, signs and scales of their hidden units.

Networks are compared in the form of `canonical`, which has one scale for all networks that differ
by positive factors between layers (ReLU) or by a constant added to all logits.

Every pair of networks is matched anew, as `alignment` matches a network to a reference. That is
what finds copies: alignment to a common reference can give a network and its near-copy different
permutations, and then their distance is that of strangers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flown_jax.weights.alignment import activations, assign
from flown_jax.weights.canonical import canonical
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.symmetries import checked_weights, hidden_layers, moved

_VALUES = 1 << 26  # activations that are held of the networks of a block


def matched_distances(
    spec: WeightSpec, a: np.ndarray, b: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Euclidean distance of every pair after matching their units, (N, M) float64.

    Units are matched by their activations on the images, which need not give the smallest
    distance; it is never larger than the distance of their canonical forms as they are.

    Args:
      spec: of a CNN. a: (N, D). b: (M, D). images: (B, H, W, C), preprocessed.
    Raises:
      UserError: not a whole CNN, vectors of another length or not finite, images of another size.
    """
    a, b = canonical(spec, a), canonical(spec, b)
    found = np.empty((len(a), len(b)))
    for rows, left in _blocks(spec, a, images):
        for columns, right in _blocks(spec, b, images):
            orders, signs = _pairs(spec, left, right)
            for i in range(rows.start, rows.stop):
                own = [each[i - rows.start] for each in orders]
                others = moved(spec, b[columns], own, [each[i - rows.start] for each in signs])
                found[i, columns] = np.minimum(_norms(others - a[i]), _norms(b[columns] - a[i]))
    return found


def matched(spec: WeightSpec, a: np.ndarray, b: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Each second network with its units in the order and with the signs of the first, (N, D).

    The functions stay as they are. A network whose match is further from the first than itself is
    left as it is. Scales between layers (ReLU) are not touched.

    Args:
      spec: of a CNN. a, b: (N, D), a pair in each row. images: (B, H, W, C), preprocessed.
    Raises:
      UserError: not a whole CNN, vectors of another length, images of another size.
    """
    a, b = checked_weights(spec, a), checked_weights(spec, b)
    found = b.copy()
    for part, left in _blocks(spec, a, images):
        right = activations(spec, b[part], images)
        orders, signs = [], []
        for layer, x, y in zip(hidden_layers(spec), left, right, strict=True):
            products = x.swapaxes(1, 2) @ y / x.shape[1]  # (n, units, units)
            order, sign, _ = assign(products, layer.signs)
            orders.append(order)
            signs.append(sign)
        others = moved(spec, b[part], orders, signs)
        nearer = _norms(others - a[part]) < _norms(b[part] - a[part])
        found[part] = np.where(nearer[:, None], others, b[part])
    return found


def _blocks(
    spec: WeightSpec, weights: np.ndarray, images: np.ndarray
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """Networks whose activations fit in memory together: where they are, and the activations."""
    one = activations(spec, weights[:1], images)
    size = max(1, _VALUES // sum(layer.size for layer in one))
    for start in range(0, len(weights), size):
        part = slice(start, min(start + size, len(weights)))
        yield part, activations(spec, weights[part], images)


def _pairs(
    spec: WeightSpec, left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Permutations and signs of the right networks for each left one: (n, m, units) by layer."""
    orders, signs = [], []
    for layer, x, y in zip(hidden_layers(spec), left, right, strict=True):
        products = np.tensordot(x, y, (1, 1)).swapaxes(1, 2) / x.shape[1]  # (n, m, units, units)
        shape = products.shape[:3]
        order, sign, _ = assign(
            products.reshape(-1, *products.shape[2:]), layer.signs or layer.mirrors
        )
        orders.append(order.reshape(shape))
        signs.append(sign.reshape(shape))
    return orders, signs


def _norms(differences: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(differences.astype(np.float64) ** 2, axis=1))
