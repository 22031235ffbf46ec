"""A short training of each kind on the devices and processes that there are; what comes out.

    python -m tests.parallel.every_kind FOLDER [ADDRESS COUNT INDEX]

Writes FOLDER/found.npz: losses and parameters of each kind of step with each optimizer.
"""

from __future__ import annotations

import pathlib
import sys
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from flown_jax.conditioning import CAML
from flown_jax.encoders.codecs import make_codec
from flown_jax.flow import couplings, paths, sources
from flown_jax.image_encoders.backbone import train_backbone
from flown_jax.meta_model import losses
from flown_jax.meta_model.caml_training import train_caml
from flown_jax.meta_model.mixing import Mixing
from flown_jax.meta_model.targets import Target
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training import Records, parallel
from flown_jax.training.recipe import Recipe
from flown_jax.training.records import read_metrics
from flown_jax.training.stages import StageContext

STEPS, BATCH = 20, 16
OPTIMIZERS = {"sgd": 1e-3, "adamw": 3e-3}
CODEC = {"reconstruction": "mse", "kl_weight": 1e-3, "sigma_in": 0.1, "sigma_lat": 0.3}


@struct.dataclass
class Numbers(Target):
    """Six numbers as they are."""

    shape: ClassVar[tuple[int, ...]] = (6,)

    def normalise(self, weights, context):
        return weights

    def restore(self, x1, context):
        return x1

    def unit(self, context):
        return jnp.ones(())

    def task_loss(self, weights, batch):
        return jnp.square(weights - 1).mean(-1)


class Steered(nn.Module):
    """A small velocity."""

    @nn.compact
    def __call__(self, x, t, condition):
        time = jnp.broadcast_to(jnp.reshape(t, (-1, 1)), (len(x), 1))
        seen = jnp.concatenate([x, time, condition["features"][:, 0]], -1)
        return nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(seen)))


def batch_at(step):
    drawn = np.random.default_rng(step).normal(size=(BATCH, 6)).astype(np.float32)
    return {
        "weights": drawn,
        "context": {},
        "latent": drawn[:, :4],
        "condition": {"features": drawn[:, None]},
    }


def episodes(step):
    drawn = np.random.default_rng(step).normal(size=(BATCH, 3, 2, 4)).astype(np.float32)
    return {"support": drawn, "query": drawn[:, :, :1] + 0.1}


def backbone(context, recipe):
    images = np.random.default_rng(0).integers(0, 255, (3, 12, 12, 12, 1), np.uint8)
    module = ResNet12(channels=(2, 3), num_classes=3)
    options = {"seed": 0, "augmentation": "random_crop_flip"}
    return train_backbone(context, module, images, recipe, **options)["variables"]


def codec(context, recipe, mixing=None):
    module = make_codec("mlp", (6,), latent_shape=(1, 1, 3), hidden_dim=8)
    more = {"mixing": mixing, "task_weight": 0.5}
    return train_codec(context, module, Numbers(), batch_at, recipe, seed=1, **CODEC, **more)


def zoo_codec(context, recipe):
    return codec(context, recipe, Mixing(mixes=4, members=2, concentration=1.0))


def flow(context, recipe):
    loss = partial(
        losses.flow_loss,
        network := Steered(),
        path=paths.LinearPath(0.1),
        coupling=couplings.independent,
        source=sources.get_source("gaussian"),
        condition_noise=0.3,
    )
    return train_generator(context, network, loss, batch_at, recipe, seed=2)


def caml(context, recipe):
    module = CAML(num_classes=4, label_dim=4, num_layers=1, num_heads=2, mlp_dim=8)
    shown = episodes(99)
    given = (shown["support"], shown["query"])
    return train_caml(context, module, episodes, recipe, seed=3, noise=0.2, validate=given)


KINDS = (
    (backbone, "sgd"),
    (codec, "sgd"),
    (codec, "adamw"),
    (zoo_codec, "adamw"),
    (flow, "sgd"),
    (flow, "adamw"),
    (caml, "adamw"),
)


def main(folder: pathlib.Path) -> None:
    """Every kind."""
    found = {"devices": np.asarray(len(jax.devices()))}
    records = Records(folder)
    for train, optimizer in KINDS:
        name = f"{train.__name__}-{optimizer}"
        recipe = Recipe(
            STEPS, BATCH, OPTIMIZERS[optimizer], optimizer=optimizer, save_every=STEPS, log_every=1
        )
        leaves = jax.tree.leaves(train(StageContext(name, folder / name, records), recipe))
        found[f"{name} parameters"] = np.concatenate([np.ravel(leaf) for leaf in leaves])
    records.close()
    if parallel.leads():
        metrics = read_metrics(folder)
        for name in sorted({record["stage"] for record in metrics}):
            told = [r["loss"] for r in metrics if r["stage"] == name and "loss" in r]
            found[f"{name} losses"] = np.asarray(told)
        np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        parallel.join(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    main(pathlib.Path(sys.argv[1]))
