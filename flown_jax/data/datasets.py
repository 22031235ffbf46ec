"""Few-shot data sets by name: classes that share nothing, and a foreign set."""

from __future__ import annotations

from typing import Any

import numpy as np

from flown_jax.data.glyphs import Jitter, draw_glyphs, glyph_classes, handwritten_digits
from flown_jax.errors import UserError

FEW_SHOT = ("glyphs",)


def few_shot(
    name: str,
    *,
    seed: int,
    alike: float,
    train_classes: int,
    validation_classes: int,
    images_per_class: int,
    jitter: float,
) -> dict[str, Any]:
    """Images of meta-train, meta-validation and meta-test classes, and a foreign set.

    Args:
      name: `glyphs`, drawn from matplotlib's fonts; foreign to them, handwritten digits.
      seed: of the images and of the random split.
      alike: see `glyphs.glyph_classes`.
      train_classes, validation_classes: how many; the rest is meta-test.
      images_per_class: m.
      jitter: strength, see `glyphs.Jitter`.
    Returns:
      {"images" uint8 (C, m, H, W), "split" {"train", "validation", "test"} of class ids,
      "characters", "foreign_images" uint8 (N, H, W), "foreign_labels" (N,)}.
    Raises:
      UserError: an unknown set, or fewer classes than the split needs.
    """
    if name not in FEW_SHOT:
        raise UserError(
            f"data.name is {name!r}; the few-shot data sets at hand are {', '.join(FEW_SHOT)}."
        )
    classes = glyph_classes(alike)
    count = len(classes.characters)
    if count <= train_classes + validation_classes:
        raise UserError(
            f"data.alike = {alike} leaves {count} characters, too few for {train_classes} "
            f"training and {validation_classes} validation classes and a test class."
        )
    order = np.random.default_rng(seed).permutation(count)
    train, validation, test = np.split(order, [train_classes, train_classes + validation_classes])
    foreign_images, foreign_labels = handwritten_digits()
    return {
        "images": draw_glyphs(classes, seed, images_per_class, Jitter(strength=jitter)),
        "split": {"train": train, "validation": validation, "test": test},
        "characters": "".join(classes.characters),
        "foreign_images": foreign_images,
        "foreign_labels": foreign_labels,
    }
