"""Variants of configs/fsl.py on real images: mini-ImageNet in, CIFAR-10 and STL-10 out."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_parts import flat_unet, recipe

_GENERATOR = {"warmup": 100, "clip": 1.0, "ema_decay": 0.998}


def mini_imagenet(config: ConfigDict) -> None:
    """Meta-train on 64 classes of mini-ImageNet, for two cores; a GPU takes the same."""
    images(config)
    config.encoder.update(side=48, mirror=True)
    config.transform.unit_first = True
    config.backbone.update(
        seed=0,  # one backbone for all seeds of the meta-model
        channels=(16, 32, 64, 128),
        images_per_class=300,  # the rest is new to the encoder, as test images are
        augmentation="degraded",
        recipe=recipe(
            12_000,  # 40 epochs of 19,200 images
            64,
            0.05,
            5e-4,
            optimizer="sgd",
            momentum=0.9,
            nesterov=True,
            warmup=200,
            save_every=1000,
        ),
    )
    config.tasks.update(
        seed=0,
        settings=("5-way 1-shot", "5-way 5-shot", "10-way 1-shot"),
        shots=(1, 5),
        train=24_000,
        validation=600,
        test=600,
    )
    config.ridge.l2 = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    config.targets.update(
        kind="lda",
        temperatures=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        base_scales=(0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8),
        sharpened=True,
    )
    config.codec.update(kl_weight=1e-4, sigma_in=0.0, task_weight=3.0)
    config.caml.noise = 0.5
    config.condition.update(entries=("features", "shots"), noise=1.5)
    config.velocity.sizes.width = 64
    config.flow.update(task_weight=3.0, permute=True)
    config.flow.recipe = recipe(1000, 128, 1e-3, 1e-4, **_GENERATOR)
    config.ddpm.update(task_weight=3.0, steps=25, samples=20)
    config.ddpm.recipe = config.flow.recipe.copy_and_resolve_references()
    config.regression.recipe = config.flow.recipe.copy_and_resolve_references()
    config.sampling.update(steps=5, temperatures=(0.7, 1.0, 1.3, 1.6), curve_tasks=200)
    for name, weight in (("flat_unet", 3.0), ("flat_unet_plain", 0.0)):
        part = ConfigDict(
            {
                name: config[name].copy_and_resolve_references()
                for name in ("codec", "velocity", "condition", "flow")
            }
        )
        flat_unet(part)
        part.condition.update(entries=("features",), noise=0.7)
        part.codec.task_weight = part.flow.task_weight = weight
        config.beside[name] = part


def images(config: ConfigDict) -> None:
    """Of mini-ImageNet, with CIFAR-10 and STL-10 beside."""
    config.data = ConfigDict(
        {
            "name": "mini_imagenet",
            "data_dir": "data",  # see experiments.prepare_data
            "foreign": ("cifar10", "stl10"),  # those that lie there
            "train_classes": 0,  # 0: all 64
            "images_per_class": 0,  # at most; 0: all
        }
    )
