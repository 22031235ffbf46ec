"""The labelled images of a data set as networks see them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np

from flown_jax.data.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled images.

    Attributes:
      images: (n, H, W, C) uint8. labels: (n,).
      preprocessing: of the networks' inputs.
    """

    images: np.ndarray
    labels: np.ndarray
    preprocessing: Preprocessing

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """The images as the networks take them, (n, H, W, C) float32."""
        return self.preprocessing.apply(self.images)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of images, labels and preprocessing."""
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images of a data set.

    Attributes:
      train: that its networks saw. validation: the rest of them. test: of the test split.
      class_names: in the order of the labels.
    """

    train: Pictures
    validation: Pictures
    test: Pictures
    class_names: tuple[str, ...]
