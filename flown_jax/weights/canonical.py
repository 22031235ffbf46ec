"""One form for all CNNs that are the same function in another scale.

Where the activation f has f(ax) = a f(x) for positive a (ReLU, leaky ReLU), a unit's incoming
weights and bias may be multiplied and its outgoing weights divided. Among all networks that come of
this, the canonical one has the smallest norm: the incoming and the outgoing weights of every unit
are of one length. Units without a way from the images or biases to the logits are zero.
Classes are probabilities, so that a constant added to all logits changes nothing: weights and
biases of the classifier have mean 0 over classes.
Behind a sigmoid s, biases are those of s - 1/2, which is odd. `symmetries.moved` can then change
signs: the canonical form is for comparisons, not a network to be run.
Source: Stock et al., Equi-normalization of Neural Networks, 2019 (the smallest norm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.symmetries import checked_weights, hidden_layers, network

_SWEEPS = 50  # on random networks the last one changes a factor by less than 1e-6


@dataclass
class _Layer:
    """kernel (N, outputs, inputs, positions), bias (N, outputs)."""

    kernel: np.ndarray
    bias: np.ndarray


def canonical(spec: WeightSpec, weights: Any) -> np.ndarray:
    """The canonical form of networks, (N, D).

    Args:
      spec: of a CNN. weights: (N, D), finite.
    Raises:
      UserError: not a whole CNN, vectors of another length, values that are not finite.
    """
    weights = checked_weights(spec, weights)
    if not np.isfinite(weights).all():
        raise UserError("weights hold values that are not finite: no distances can be measured.")
    found = weights.astype(np.float64)
    hidden = hidden_layers(spec)
    layers = _layers(spec, found)
    for i, layer in enumerate(hidden):
        if layer.mirrors:
            layers[i + 1].bias[:] += layers[i + 1].kernel.sum((2, 3)) / 2
    classifier = layers[-1]
    if classifier.bias.shape[1] > 1:
        classifier.kernel -= classifier.kernel.mean(1, keepdims=True)
        classifier.bias -= classifier.bias.mean(1, keepdims=True)
    if any(layer.scales for layer in hidden):
        _balance(layers)
    return found.astype(np.result_type(weights, np.float32))


def _layers(spec: WeightSpec, weights: np.ndarray) -> list[_Layer]:
    """Views of the vectors, so that they change with the layers."""
    cnn, count = network(spec), len(weights)
    places = {entry.path: spec.slices[entry.name] for entry in spec.entries}
    widths = [1, *cnn.channels, *cnn.hidden, cnn.num_classes]  # the images are one input
    names = [*(layer.name for layer in hidden_layers(spec)), f"dense_{len(cnn.hidden)}"]
    found = []
    for name, inputs, outputs in zip(names, widths, widths[1:], strict=False):
        kernel = weights[:, places[f"params/{name}/kernel"]]
        # Flattened maps are blocks of positions, a block for each channel, as kernels are.
        kernel = kernel.reshape(count, outputs, inputs, -1)
        found.append(_Layer(kernel, weights[:, places[f"params/{name}/bias"]]))
    return found


def _balance(layers: list[_Layer]) -> None:
    """Scales every hidden unit so that the norm of all is the smallest; see the module."""
    kernels = [np.sum(layer.kernel**2, -1) for layer in layers]  # (N, outputs, inputs)
    biases = [layer.bias**2 for layer in layers]
    last = len(layers) - 1
    images, classes = np.ones_like(kernels[0][:, 0]), np.ones_like(biases[last])
    # Which units get anything, and from which of these anything goes on to the classes.
    alive = [images]
    for kernel, bias in zip(kernels, biases, strict=True):
        alive.append((_times(kernel, alive[-1]) + bias > 0).astype(float))
    alive[-1] = classes
    for i in range(last, 0, -1):
        alive[i] = alive[i] * (_times(kernels[i].swapaxes(1, 2), alive[i + 1]) > 0)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        kernel *= alive[i + 1][:, :, None] * alive[i][:, None]
        bias *= alive[i + 1]
    # Squared factors. The first have incoming weights of length 1, whatever the given scale was, so
    # that networks in different scales take the same steps.
    factors = [images, *(np.ones_like(bias) for bias in biases)]
    for i in range(last):
        factors[i + 1] = 1 / _positive(_times(kernels[i], 1 / factors[i]) + biases[i])
    for _ in range(_SWEEPS):
        for i in range(last):
            incoming = _times(kernels[i], 1 / factors[i]) + biases[i]
            outgoing = _times(kernels[i + 1].swapaxes(1, 2), factors[i + 2])
            factors[i + 1] = np.sqrt(_positive(outgoing) / _positive(incoming))
    for i, layer in enumerate(layers):
        out = np.sqrt(factors[i + 1]) * alive[i + 1]
        layer.kernel *= (out[:, :, None] * alive[i][:, None] / np.sqrt(factors[i])[:, None])[
            ..., None
        ]
        layer.bias *= out


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, a, b) times (N, b), (N, a)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _positive(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 1.0)
