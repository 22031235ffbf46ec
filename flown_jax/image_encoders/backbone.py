"""The image encoder that is trained here: ResNet-12, a classifier of the meta-train classes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flown_jax.errors import UserError
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.augmentation import augmentation as augmentation_named
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext

_CHUNK = 250  # images at a time where the accuracy is measured
_MEASURED = 2000


def train_backbone(
    context: StageContext,
    module: ResNet12,
    images: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    augmentation: str = "none",
) -> dict[str, Any]:
    """Variables of a classifier of the classes of `images`, and its last training accuracy.

    Args:
      module: with as many classes as `images` has.
      images: uint8 (classes, m, H, W, C), grey or colour; the network sees them in [0, 1].
      seed: of the start, of the order of the images and of their changes.
      augmentation: as in `training.augmentation`; it is part of the compiled step.
    Returns:
      {"variables": {"params", "batch_stats"}, "train_accuracy"}; the accuracy is that of up to
      2000 of the images as they are, at their full side.
    Raises:
      UserError: an unknown augmentation, or images that are too small for the network.
    """
    if images.ndim != 5 or len(images) != module.num_classes:
        raise ValueError(
            f"images {images.shape} must be (classes, m, H, W, C) with the network's "
            f"{module.num_classes} classes."
        )
    augment = augmentation_named(augmentation)
    _check_side(module, augment, images.shape[2:], augmentation)
    flat = images.reshape(-1, *images.shape[2:])
    labels = np.repeat(np.arange(len(images)), images.shape[1])
    variables = jax.jit(module.init)(jax.random.key(seed), as_input(jnp.asarray(flat[:1])))

    def loss_fn(params, key, batch, batch_stats):
        logits, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            augment(key, as_input(batch["images"])),
            train=True,
            method="logits",
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["labels"])
        return loss, ({"accuracy": accuracy}, updated["batch_stats"])

    def batch_at(step: int) -> dict[str, np.ndarray]:
        chosen = np.random.default_rng((seed, step)).integers(0, len(flat), recipe.batch)
        return {"images": flat[chosen], "labels": labels[chosen]}

    state = train(
        context,
        recipe,
        variables["params"],
        loss_fn,
        batch_at,
        seed=seed,
        extra=variables["batch_stats"],
    )
    trained = {"params": state.params, "batch_stats": state.extra}
    size = min(_CHUNK, len(flat))
    count = min(_MEASURED, len(flat)) // size * size  # whole chunks: one compilation
    sample = np.random.default_rng(seed).choice(len(flat), count, replace=False)
    right = [
        np.asarray(_logits(module, trained, flat[some])).argmax(-1) == labels[some]
        for some in sample.reshape(-1, size)
    ]
    return {"variables": trained, "train_accuracy": float(np.mean(right))}


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Images uint8 (m, side, side, C) of images uint8 (m, H, W, C): bilinear, antialiased."""
    if images.shape[1:3] == (side, side):
        return images
    chunks = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
    return np.concatenate([np.asarray(_resized(chunk, side)) for chunk in chunks])


@functools.partial(jax.jit, static_argnums=1)
def _resized(images: jax.Array, side: int) -> jax.Array:
    shape = (images.shape[0], side, side, images.shape[3])
    out = jax.image.resize(images.astype(jnp.float32), shape, "bilinear", antialias=True)
    return jnp.clip(jnp.round(out), 0, 255).astype(jnp.uint8)


def as_input(images: jax.Array) -> jax.Array:
    """Images (B, H, W, C), uint8, as the network takes them: float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


@functools.partial(jax.jit, static_argnums=0)
def _logits(module: ResNet12, variables: Any, images: jax.Array) -> jax.Array:
    return module.apply(variables, as_input(images), method="logits")


def _check_side(module: ResNet12, augment: Any, shape: tuple[int, ...], name: str) -> None:
    """Refuses images that are too small once they are augmented."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    sides = jax.eval_shape(augment, jax.random.key(0), image).shape[1:3]
    smallest = 2 ** len(module.channels)
    if min(sides) < smallest:
        cut = "" if name == "none" else f" after the augmentation {name}"
        raise UserError(
            f"the backbone's images have {sides[0]} x {sides[1]} pixels{cut}; the network takes "
            f"no fewer than {smallest} x {smallest}."
        )
