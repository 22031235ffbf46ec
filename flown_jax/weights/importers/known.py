"""The published zoos: which image set a name means, and what their networks were fed with.

The figures are those of Schuerholt et al., "Model Zoos" (NeurIPS 2022): images resized to 28
pixels for the small network and 32 for the medium one, then normalised.
"""

from __future__ import annotations

import re
from typing import Any

from flown_jax.errors import UserError

# Spellings in folders' names, the longer ones first: "f_mnist" also contains "mnist". A spelling
# within a longer word ("emnist", "castle") says nothing.
_SPELLINGS = (
    ("fashion_mnist", r"fashion(_?mnist)?|f_?mnist"),
    ("kmnist", r"k_?mnist"),
    ("mnist", r"(?<!_[a-z]_)mnist(?!_[a-z]_)"),  # neither q_mnist nor mnist_m
    ("usps", r"usps"),
    ("svhn_cropped", r"svhn"),
    ("cifar100", r"cifar_?100"),
    ("cifar10", r"cifar(_?10)?"),
    ("stl10", r"stl(_?10)?"),
)
# How many classes each has.
_CLASSES = {name: 100 if name == "cifar100" else 10 for name, _ in _SPELLINGS}

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
        plain = f"_{re.sub(r'[^a-z0-9]', '_', name.lower())}_"
        for dataset, spelling in _SPELLINGS:
            if re.search(rf"(?<![a-z0-9])({spelling})(?![a-z0-9])", plain):
                return dataset
    return ""


def check_classes(dataset: str, classes: int, where: str) -> None:
    """Refuses an image set that was read off a name, where the networks have other classes.

    Raises:
      UserError: they have; `where` begins the sentence.
    """
    if dataset in _CLASSES and classes != _CLASSES[dataset]:
        raise UserError(
            f"{where}: its name says {dataset}, which has {_CLASSES[dataset]} classes, but its "
            f"networks have {classes}; give dataset"
        )


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
