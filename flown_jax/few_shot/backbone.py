"""The image encoder: ResNet-12, a classifier of the meta-train classes, then frozen."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext


def as_input(images: jax.Array) -> jax.Array:
    """Images (B, H, W) or (B, H, W, C), uint8, as the network takes them: NHWC in [0, 1]."""
    images = images[..., None] if images.ndim == 3 else images
    return images.astype(jnp.float32) / 255


def train_backbone(
    context: StageContext,
    module: ResNet12,
    images: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
) -> dict[str, Any]:
    """Variables of a classifier of the classes of `images`, and its last training accuracy.

    Args:
      module: with as many classes as `images` has.
      images: uint8 (classes, m, H, W) or (..., C).
    Returns:
      {"variables": {"params", "batch_stats"}, "train_accuracy"}.
    """
    flat = images.reshape(-1, *images.shape[2:])
    labels = np.repeat(np.arange(len(images)), images.shape[1])
    variables = jax.jit(module.init)(jax.random.key(seed), as_input(jnp.asarray(flat[:1])))

    def loss_fn(params, key, batch, batch_stats):
        del key
        logits, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            as_input(batch["images"]),
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
    sample = np.random.default_rng(seed).choice(len(flat), min(2000, len(flat)), replace=False)
    logits = in_chunks(_logits, module, trained, flat[sample])
    return {
        "variables": trained,
        "train_accuracy": float((logits.argmax(-1) == labels[sample]).mean()),
    }


def extract_features(module: ResNet12, variables: Any, images: np.ndarray) -> np.ndarray:
    """Pooled features (..., F) of images (..., H, W), by the frozen network."""
    flat = images.reshape(-1, *images.shape[-2:])
    features = in_chunks(_features, module, variables, flat)
    return features.reshape(*images.shape[:-2], -1)


def in_chunks(
    function: Any, module: ResNet12, variables: Any, rows: np.ndarray, size: int = 500
) -> np.ndarray:
    """A compiled function (module, variables, rows), applied to `size` rows at a time."""
    out = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        # One shape, one compilation: the last chunk is padded.
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
        out.append(np.asarray(function(module, variables, padded))[: len(chunk)])
    return np.concatenate(out)


@functools.partial(jax.jit, static_argnums=0)
def _features(module: ResNet12, variables: Any, images: jax.Array) -> jax.Array:
    return module.apply(variables, as_input(images))


@functools.partial(jax.jit, static_argnums=0)
def _logits(module: ResNet12, variables: Any, images: jax.Array) -> jax.Array:
    return module.apply(variables, as_input(images), method="logits")
