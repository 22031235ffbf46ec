"""Equal-length, maximally equiangular class names (ELMES), the label vectors of CAML."""

from __future__ import annotations

import numpy as np


def elmes(num_classes: int, width: int, seed: int = 50) -> np.ndarray:
    """C unit vectors of one length p with every inner product -1/(C-1), (C, p).

    The corners of a regular simplex, (U M)^T with M = sqrt(C/(C-1)) (I - 11^T/C) and U the
    orthonormal columns of a seeded random (p, C) matrix. The rows sum to zero (rank C-1).

    Args:
      num_classes: C, at least 2.
      width: p, at least C.
      seed: of the random rotation; 50 gives the vectors of the published models.
    Returns:
      The vectors as rows, float32.
    Raises:
      ValueError: C < 2 or p < C.
    Source: Fifty et al., Context-Aware Meta-Learning, 2024, section 4.
    """
    if num_classes < 2:
        raise ValueError(f"An ELMES names at least 2 classes, not num_classes={num_classes}.")
    if width < num_classes:
        raise ValueError(
            f"An ELMES of {num_classes} classes needs width >= {num_classes}, not {width}."
        )
    uniforms = np.random.RandomState(seed).random_sample((width, num_classes))
    return simplex(uniforms)


def simplex(matrix: np.ndarray) -> np.ndarray:
    """The ELMES spanned by the columns of `matrix`, float32 (C, p).

    Args:
      matrix: (p, C) of full column rank.
    """
    num_classes = matrix.shape[1]
    orthonormal, _ = np.linalg.qr(matrix)
    centring = np.eye(num_classes) - 1.0 / num_classes
    scale = np.sqrt(num_classes / (num_classes - 1.0))
    return np.ascontiguousarray((orthonormal @ (scale * centring)).T, dtype=np.float32)
