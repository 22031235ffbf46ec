"""Variants of configs/fsl.py on real images: mini-ImageNet in, CIFAR-10 and STL-10 out."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_parts import flat_unet, paper_graph, recipe

_GENERATOR = {"warmup": 100, "clip": 1.0, "ema_decay": 0.998}


def mini_imagenet(config: ConfigDict) -> None:
    """Meta-train on 64 classes of mini-ImageNet, for two cores; a GPU takes the same."""
    _images(config)
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


def paper(config: ConfigDict) -> None:
    """The paper's values, each with its place."""
    _images(config)
    config.encoder.side = 84
    config.tasks.update(settings=("5-way 1-shot", "5-way 5-shot"), shots=(1, 5))
    config.tasks.train = 50_000  # section 3.2
    config.tasks.test = 100  # section 3.2
    config.backbone.channels = (64, 128, 256, 512)  # ResNet-12 of Chen et al., section 3.2
    config.backbone.recipe.steps = 30_000  # 100 epochs of 38,400 images
    config.targets.kind = "adamw"  # section 3.2: 100 epochs, 1e-3, decay 1e-2
    config.targets.temperatures = (1.0,)
    config.targets.base_scales = ()
    config.targets.centred = False
    config.targets.standardised = False
    config.codec.form = "autoencoder_kl"
    config.codec.sizes = ConfigDict(
        {
            "resolution": 64,
            "ch": 128,  # D2NWG's; the paper prints none
            "ch_mult": (1, 1, 2, 2),  # Table 6
            "num_res_blocks": 2,  # Table 6
            "z_channels": 4,  # Table 6: 4 x 8 x 8
            "embed_dim": 4,
        }
    )
    paper_graph(config.codec.graph)  # where codec.encoder is graph
    config.codec.reconstruction = "sse"  # eq. 2
    config.codec.kl_weight = 1e-6  # Table 6
    config.codec.task_weight = 0.0
    config.codec.recipe = recipe(  # Table 6: 1e-2, 2e-6, 128, 100-500 epochs of 391 steps
        39_100, 128, 1e-2, 2e-6, schedule="constant", save_every=2000
    )
    config.caml.update(num_layers=24, num_heads=16, mlp_dim=4096, label_dim=256)  # Fifty et al.
    config.caml.recipe = recipe(
        50_000, 64, 1e-5, 0.0, warmup=1000, clip=1.0, validate_every=5000, save_every=5000
    )
    config.caml.noise = 0.0
    config.condition.entries = ("caml",)  # A.4.2
    config.condition.noise = 0.0
    config.velocity.kind = "unet"  # A.2.3
    config.velocity.sizes = ConfigDict(
        {
            "model_channels": 128,  # Table 6: time and data set embedding
            "channel_mult": (1, 2, 2),
            "num_res_blocks": 2,
            "attention_resolutions": (2,),
            "num_heads": 4,
            "time_scale": 1000.0,
            "embedding_dim": 128,  # Table 6
            "injection": "both",  # A.4.2 projects with the time, section 2.2 concatenates
            "condition_channels": 4,
            "wide": False,
        }
    )
    config.flow.source = "kaiming_normal"  # section 2.2
    config.flow.task_weight = 0.0
    config.flow.permute = False
    config.flow.recipe = recipe(  # Table 6: 2e-4, 2e-6, 128, 100-500 epochs of 391 steps
        39_100, 128, 2e-4, 2e-6, schedule="constant", ema_decay=0.9999, save_every=2000
    )
    config.flow.ensemble.recipe.steps = 0
    config.ddpm.task_weight = 0.0
    config.ddpm.recipe = config.flow.recipe.copy_and_resolve_references()
    config.regression.task_weight = 0.0
    config.regression.recipe = config.flow.recipe.copy_and_resolve_references()
    config.sampling.steps = 100  # Table 6: NFE
    config.sampling.temperatures = (1.0,)


def _images(config: ConfigDict) -> None:
    config.data = ConfigDict(
        {
            "name": "mini_imagenet",
            "data_dir": "data",  # see experiments.prepare_data
            "foreign": ("cifar10", "stl10"),  # those that lie there
            "train_classes": 0,  # 0: all 64
            "images_per_class": 0,  # at most; 0: all
        }
    )
