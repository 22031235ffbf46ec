"""The published zoos: which image set a name means, and what their networks were fed with.

The figures are those of Schuerholt et al., "Model Zoos" (NeurIPS 2022): images resized to 28
pixels for the small network and 32 for the medium one, then normalised.
"""

from __future__ import annotations

import re
from typing import Any

# Words of folder names, the longer ones first: "f_mnist" also contains "mnist".
_WORDS = (
    ("fashion_mnist", ("fashion", "f_mnist", "fmnist")),
    ("kmnist", ("kmnist", "k_mnist")),
    ("mnist", ("mnist",)),
    ("usps", ("usps",)),
    ("svhn_cropped", ("svhn",)),
    ("cifar100", ("cifar100", "cifar_100")),
    ("cifar10", ("cifar",)),
    ("stl10", ("stl",)),
)

# Channels, mean and standard deviation of each channel, side of the centre crop.
_INPUTS: dict[str, tuple[int, float, float, int | None]] = {
    "mnist": (1, 0.1307, 0.3081, None),
    "fashion_mnist": (1, 0.5, 0.5, None),
    "svhn_cropped": (1, 0.5, 0.5, 28),
    "usps": (1, 0.1307, 0.3081, None),
    "cifar10": (3, 0.5, 0.5, None),
    "stl10": (3, 0.5, 0.5, None),
}


def dataset_in(*names: str) -> str:
    """The image set that the first of the names to mention one mentions, or ""."""
    for name in names:
        plain = re.sub(r"[-\s.]", "_", name.lower())
        for dataset, words in _WORDS:
            if any(word in plain for word in words):
                return dataset
    return ""


def zoo_inputs(dataset: str, channels: int, side: int) -> dict[str, Any] | None:
    """The preprocessing of a published CNN zoo, or None where none is known.

    Args:
      dataset: the image set.
      channels: that the network takes.
      side: 28 for the small network, 32 for the medium one.
    """
    if dataset not in _INPUTS or _INPUTS[dataset][0] != channels:
        return None
    _, mean, std, crop = _INPUTS[dataset]
    if crop is not None and crop != side:
        return None
    return {
        "size": side,
        "channels": channels,
        "mean": [mean] * channels,
        "std": [std] * channels,
        "crop": crop,
    }
