"""A tiny few-shot meta-model with random parameters, for the tests that need no training."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The target registers itself.
import flown_jax.few_shot.space  # noqa: F401
from flown_jax.conditioning import CAML
from flown_jax.data.episodes import Episodes
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.image_encoders import from_module
from flown_jax.meta_model.build import Parts, build
from flown_jax.models.resnet12 import ResNet12
from flown_jax.velocity.make import make_velocity

WAY, SHOT, WIDTH, SIDE = 3, 2, 4, 16
CHANNELS = (4, 4, 4, WIDTH)
SHOTS, BASE_SCALES = (1, 4), (0.5, 0.9)
CODECS = {
    "token": ({"code_dim": 3, "hidden_dim": 8}, (WAY, 3)),
    "mlp": ({"latent_shape": (4, 4, 2), "hidden_dim": 8}, (4, 4, 2)),
}
VELOCITIES = {
    "token": (
        "token_transformer",
        {"width": 8, "num_layers": 1, "num_heads": 2, "time_dim": 8},
    ),
    "mlp": (
        "unet",
        {
            "model_channels": 8,
            "channel_mult": (1,),
            "num_res_blocks": 1,
            "num_groups": 4,
            "embedding_dim": 8,
            "condition_channels": 2,
        },
    ),
}


def description(
    form: str = "token", entries: tuple[str, ...] = ("features",), side: int = 0
) -> dict[str, Any]:
    """JSON values of a meta-model of 3 classes, 16 x 16 images and 4 features.

    Args:
      form: of the codec. entries: of the condition. side: that images are resized to; 0: none.
    """
    sizes, latent_shape = CODECS[form]
    kind, velocity = VELOCITIES[form]
    caml = {"num_classes": 4, "label_dim": 4, "num_layers": 1, "num_heads": 2, "mlp_dim": 8}
    return {
        "target": {"kind": "heads", "way": WAY, "shots": list(SHOTS), "centred": True},
        "image_shape": [SIDE, SIDE, 1],
        "encoder": from_module(ResNet12(CHANNELS), _backbone(0), side=side).describe(),
        "unit_first": False,
        "codec": {"form": form, "sizes": _lists(sizes)},
        "caml": caml if "caml" in entries else None,
        "condition": list(entries),
        "velocity": {"kind": kind, "sizes": _lists(velocity)},
        "latent_shape": list(latent_shape),
        "source": "gaussian",
        "sampling": {"solver": "euler", "steps": 3, "temperature": 0.7, "samples": 4},
        "trained_on": "nothing",
    }


def arrays(about: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Random arrays for a description; nothing is left at its zero initialisation."""
    rng = np.random.default_rng(seed)
    key, heads = jax.random.key(0), jnp.zeros((1, WAY, WIDTH + 1))
    known = {"features": jnp.zeros((1, WAY, WIDTH)), "shots": jnp.zeros((1, WAY, 1))}
    latent_shape = tuple(about["latent_shape"])
    shape = latent_shape[1:] if about["codec"]["form"] == "token" else latent_shape
    codec = make_codec(about["codec"]["form"], (WAY, WIDTH + 1), **tuples(about["codec"]["sizes"]))
    out: dict[str, Any] = {
        "encoder": _backbone(seed),
        "transform": {
            "mean": 0.1 * rng.normal(size=WIDTH).astype(np.float32),
            "scale": np.float32(2.0),
        },
        "target": {
            "base_scales": np.asarray(BASE_SCALES, np.float32),
            "scale": np.linspace(0.5, 1.5, WIDTH + 1, dtype=np.float32),
        },
        "codec": random_variables(rng, codec.init, key, heads),
        "latents": {
            "mean": 0.3 * rng.normal(size=shape).astype(np.float32),
            "std": np.full(shape, 1.5, np.float32),
        },
    }
    if about["caml"] is not None:
        rows = heads[0, :, :WIDTH]
        out["caml"] = random_variables(
            rng, CAML(**about["caml"]).init, key, rows, jnp.arange(WAY), rows
        )
        width = WIDTH + about["caml"]["label_dim"]
        out["slots"] = {
            "mean": np.zeros((WAY, width), np.float32),
            "std": np.ones((WAY, width), np.float32),
        }
        known["caml"] = jnp.zeros((1, WAY, width))
    known = {name: known[name] for name in about["condition"]}
    velocity = make_velocity(
        about["velocity"]["kind"], latent_shape, **tuples(about["velocity"]["sizes"])
    )
    latent = jnp.zeros((1, *latent_shape))
    out["velocity"] = random_variables(rng, velocity.init, key, latent, jnp.zeros(()), known)
    return out


@functools.cache
def parts(form: str = "token", entries: tuple[str, ...] = ("features",), seed: int = 0) -> Parts:
    """The meta-model of both, without a side."""
    about = description(form, entries)
    return build(about, arrays(about, seed))


def perturbed(tree: Any, key: jax.Array, scale: float = 0.2) -> Any:
    """The tree with normal noise on every entry; of statistics, only positive ones."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        leaf + scale * jnp.abs(jax.random.normal(k, leaf.shape))
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    signs = [
        jnp.where(leaf == 0, jax.random.rademacher(k, leaf.shape).astype(leaf.dtype), 1)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(
        structure, [value * sign for value, sign in zip(noisy, signs, strict=True)]
    )


def table(
    tasks: int = 6,
    query: int = 4,
    seed: int = 0,
    targets: int | None = None,
    shot: int = SHOT,
    way: int = WAY,
) -> TaskTable:
    """Tasks over 5 classes of clustered random features; `targets` None: the support."""
    rng = np.random.default_rng(seed)
    targets = shot if targets is None else targets
    images = targets + query
    centres = rng.normal(size=(5, 1, WIDTH))
    features = (centres + 0.4 * rng.normal(size=(5, images, WIDTH))).astype(np.float32)
    classes = np.stack([rng.permutation(5)[:way] for _ in range(tasks)])
    drawn = rng.permuted(np.broadcast_to(np.arange(images), (tasks, way, images)), axis=-1)
    target = drawn[..., :targets]
    return TaskTable(features, Episodes(classes, target[..., :shot], drawn[..., targets:]), target)


def random_variables(rng: np.random.Generator, init: Any, *arguments: Any) -> Any:
    """Variables of the shapes that an `init` gives, which need not be compiled for them."""

    def fill(path: Any, leaf: Any) -> np.ndarray:
        normal = rng.normal(size=leaf.shape).astype(leaf.dtype)
        name = path[-1].key
        if "scale" in name or name == "var":
            return np.asarray(1 + 0.2 * np.abs(normal), leaf.dtype)
        return normal / np.sqrt(max(np.prod(leaf.shape[:-1]), 25)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, *arguments))


@functools.cache
def _backbone(seed: int) -> Any:
    image = jnp.zeros((1, SIDE, SIDE, 1))
    rng = np.random.default_rng((seed, 1))
    return random_variables(rng, ResNet12(CHANNELS).init, jax.random.key(0), image)


def _lists(sizes: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in sizes.items()}
