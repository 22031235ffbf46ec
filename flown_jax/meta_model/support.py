"""What a user shows a meta-model: a support set, to features, a condition and a context."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.data.preprocessing import with_channels
from flown_jax.errors import UserError
from flown_jax.image_encoders import ImageEncoder
from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.condition import Conditioner
from flown_jax.meta_model.given import checked_images, classes_of
from flown_jax.meta_model.targets import Support
from flown_jax.models.heads import FeatureTransform


def sight(parts: Parts) -> tuple[ImageEncoder, FeatureTransform, Conditioner]:
    """What makes a condition of images.

    Raises:
      UserError: the meta-model generates without any.
    """
    if parts.encoder is None or parts.transform is None or parts.conditioner is None:
        raise UserError("this meta-model generates without a condition: it sees no images.")
    return parts.encoder, parts.transform, parts.conditioner


def shown(
    parts: Parts, images: Any, labels: Any, class_names: Any, like: str | None
) -> tuple[Any, Any, Sequence[Hashable]]:
    """The condition and the context of what a user shows, and the classes in order.

    Args:
      images, labels, class_names, like: as in `MetaModel.generate`.
    Returns:
      Named arrays (1, n, E), or None; the target's context; n names.
    Raises:
      UserError: as `MetaModel.generate`.
    """
    target, given = parts.target, [of is not None for of in (images, labels, class_names)]
    if parts.conditioner is None:
        if any(given):
            raise UserError(
                "this meta-model generates without a condition: give no images, labels or class "
                "names."
            )
        return None, *target.unshown(like)
    if not all(given[:2]):
        raise UserError("this meta-model generates for a support set: give images and labels.")
    images = checked(parts, images)
    listed, place = classes_of(labels, class_names, len(images))
    classes = list(target.classes(listed, class_names is not None, like))
    index = np.asarray([classes.index(listed[i]) for i in place])
    trained = parts.description["target"].get("way")
    if trained not in (None, len(classes)) and not parts.any_way:
        raise UserError(
            f"the support set has {len(classes)} classes; this meta-model was trained for "
            f"{trained}."
        )
    found = features(parts, images)
    condition = parts.conditioner.of_images(jnp.asarray(found), jnp.asarray(index), len(classes))
    context = target.context(Support(found, index, tuple(classes), condition, like))
    return condition, context, classes


def features(parts: Parts, images: np.ndarray) -> np.ndarray:
    """Transformed features (m, F) of checked images (m, H, W, C).

    Raises:
      UserError: features of another width than the meta-model was trained on.
    """
    encoder, transform, _ = sight(parts)
    if parts.target.resizes:
        images = with_channels(images, parts.description["image_shape"][-1])
    found, width = encoder.features(images), transform.mean.shape[0]
    if found.shape[1] != width:
        raise UserError(
            f"the image encoder {encoder.kind} gives {found.shape[1]} features an image; this "
            f"meta-model was trained on {width}."
        )
    return np.asarray(_transformed(transform, found))


def checked(parts: Parts, images: Any) -> np.ndarray:
    """Images (m, H, W, C) as they came: uint8, or float32 in [0, 1].

    Raises:
      UserError: what `given.checked_images` refuses.
    """
    *sides, channels = parts.description["image_shape"]
    any_images, encoder = parts.target.resizes, parts.encoder
    resized = any_images or (encoder is not None and encoder.side)
    return checked_images(
        images, sides=None if resized else sides, channels=(1, 3) if any_images else (channels,)
    )


_transformed = jax.jit(FeatureTransform.apply)
