"""Variants of configs/fsl.py with the published recipe: at its own sizes, and at two cores'."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.fsl_parts import flat_unet, paper_graph, recipe
from configs.fsl_real import images

_PARTS = ("codec", "velocity", "condition", "flow")


def paper(config: ConfigDict) -> None:
    """The paper's values, each with its place."""
    images(config)
    printed(config)
    config.encoder.side = 84
    config.tasks.update(settings=("5-way 1-shot", "5-way 5-shot"), shots=(1, 5))
    config.tasks.train = 50_000  # section 3.2
    config.backbone.channels = (64, 128, 256, 512)  # ResNet-12 of Chen et al., section 3.2
    config.backbone.recipe.steps = 30_000  # 100 epochs of 38,400 images
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
    long = {"steps": 39_100, "save_every": 2000}  # Table 6: 100-500 epochs of 391 steps
    config.codec.recipe.update(long)
    config.caml.update(num_layers=24, num_heads=16, mlp_dim=4096, label_dim=256)  # Fifty et al.
    config.caml.recipe = recipe(
        50_000, 64, 1e-5, 0.0, warmup=1000, clip=1.0, validate_every=5000, save_every=5000
    )
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
    for part in (config.flow, config.ddpm, config.regression):
        part.recipe.update(long, ema_decay=0.9999)


def printed(config: ConfigDict) -> None:
    """All that the paper prints of the few-shot experiment but sizes and numbers of steps."""
    config.tasks.test = 100  # section 3.2
    config.targets.kind = "adamw"  # section 3.2: 100 epochs, 1e-3, decay 1e-2
    config.targets.temperatures = (1.0,)
    config.targets.base_scales = ()
    config.targets.centred = False
    config.targets.standardised = False
    config.codec.form = "autoencoder_kl"
    config.codec.reconstruction = "sse"  # eq. 2
    config.codec.kl_weight = 1e-6  # Table 6
    config.codec.task_weight = 0.0
    config.codec.recipe = recipe(1, 128, 1e-2, 2e-6, schedule="constant")  # Table 6
    config.caml.noise = 0.0
    config.condition.entries = ("caml",)  # A.4.2
    config.condition.noise = 0.0
    config.velocity.kind = "unet"  # A.2.3
    config.flow.source = "kaiming_normal"  # section 2.2
    config.flow.task_weight = 0.0
    config.flow.permute = False
    config.flow.recipe = recipe(1, 128, 2e-4, 2e-6, schedule="constant")  # Table 6
    config.flow.ensemble.recipe.steps = 0
    for part in (config.ddpm, config.regression):
        part.task_weight = 0.0
        part.recipe = config.flow.recipe.copy_and_resolve_references()
    config.sampling.steps = 100  # Table 6: NFE
    config.sampling.temperatures = (1.0,)


def published(config: ConfigDict) -> None:
    """The printed recipe on glyphs, narrower and shorter, for two cores.

    Beside it stand designs that change one thing each to what this project has in its place.
    """
    ours = ConfigDict({name: config[name].copy_and_resolve_references() for name in _PARTS})
    printed(config)
    _narrow(config, steps=2000)
    _one_at_a_time(config, ours)


def published_mini_imagenet(config: ConfigDict) -> None:
    """The same on mini-ImageNet, CIFAR-10 and STL-10."""
    images(config)
    ours = ConfigDict({name: config[name].copy_and_resolve_references() for name in _PARTS})
    ours.codec.update(task_weight=3.0)
    ours.flow.update(task_weight=3.0)
    ours.condition.noise = 0.7
    printed(config)
    config.encoder.side = 48
    config.backbone.update(seed=0, channels=(16, 32, 64, 128), images_per_class=300)
    config.backbone.recipe.update(steps=2000, batch=64, learning_rate=0.05, warmup=200)
    config.tasks.update(seed=0, settings=("5-way 1-shot",), shots=(1,))
    _narrow(config, steps=2000)
    _one_at_a_time(config, ours)


def _narrow(config: ConfigDict, steps: int) -> None:
    """Widths and steps: the latent of 4 x 8 x 8 and the lengths of embeddings are the paper's."""
    config.codec.sizes = ConfigDict(
        {
            "resolution": 16,
            "ch": 8,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "z_channels": 4,
            "embed_dim": 4,
        }
    )
    config.codec.recipe.update(steps=steps // 2, save_every=500)
    unet = ConfigDict({"codec": {}, "velocity": {}})
    flat_unet(unet)
    config.velocity.sizes = unet.velocity.sizes
    config.velocity.sizes.update(injection="time", condition_channels=0, wide=False)
    # An average over more steps than there are would be of the start.
    config.flow.recipe.update(steps=steps, ema_decay=0.999, save_every=500)
    for part in (config.ddpm, config.regression):
        part.recipe.update(steps=steps // 2, ema_decay=0.999, save_every=500)
    # One sample is a hundred evaluations of a UNet, for each of eight designs.
    config.tasks.validation = 50


def _one_at_a_time(config: ConfigDict, ours: ConfigDict) -> None:
    """Designs beside with one change each; changes of the target heads are the run's.

    An autoencoder or a condition of ours comes with the recipe or the noise that it has here.

    Args:
      ours: `codec`, `velocity`, `condition` and `flow` of this project's own variant.
    """
    changes: dict[str, dict[str, Any]] = {
        "with_task_loss": {
            "codec": {"task_weight": ours.codec.task_weight},
            "flow": {"task_weight": ours.flow.task_weight},
        },
        "with_mlp_codec": {
            "codec": {
                "form": "mlp",
                "sizes": ConfigDict({"latent_shape": (8, 8, 4), "hidden_dim": 512}),
                "recipe": ours.codec.recipe.copy_and_resolve_references(),
            }
        },
        "with_gaussian_source": {"flow": {"source": "gaussian"}},
        "with_features": {
            "condition": {"entries": ours.condition.entries, "noise": ours.condition.noise}
        },
    }
    for name, change in changes.items():
        part = ConfigDict({n: config[n].copy_and_resolve_references() for n in _PARTS})
        for group, values in change.items():
            for field, value in values.items():
                part[group][field] = value  # sizes are other fields, not merged ones
        config.beside[name] = part
    config.beside["ours"] = ours
