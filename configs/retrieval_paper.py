"""Variants of configs/retrieval.py with the published recipe: at its own sizes, or two cores'."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.fsl_parts import paper_graph

# Of the paper's first column of Table 6, but for steps.
_CODEC: dict[str, Any] = {"batch": 32, "learning_rate": 1e-3, "weight_decay": 2e-6}


def paper(config: ConfigDict, names: tuple[str, ...]) -> None:
    """The paper's sizes: published zoos, epochs 46 to 50, convolutional VAE, UNet (Table 6).

    Args:
      names: of the data sets.
    """
    printed(config)
    config.zoos = ConfigDict({name: f"zoos/{name}" for name in names})
    config.epochs = tuple(range(46, 51))
    config.codec.sizes = ConfigDict(
        {
            "ch": 128,
            "ch_mult": (1, 1, 2, 2, 2),
            "num_res_blocks": 2,
            "z_channels": 4,
            "embed_dim": 4,
            "resolution": 64,
        }
    )
    config.codec.recipe.steps = 50_000
    paper_graph(config.codec.graph)  # where codec.encoder is graph, as in its Tables 1 and 4
    config.velocity.sizes.update(
        model_channels=128, channel_mult=(1, 2, 2), num_res_blocks=2, num_heads=4, num_groups=32
    )
    config.beside = ConfigDict({})
    config.flow.recipe.steps = 50_000
    config.prior.recipe.update(steps=50_000, batch=32, weight_decay=2e-6)
    config.initialise.update(images=0, epochs=(0, 1, 5, 25, 50))


def printed(config: ConfigDict) -> None:
    """All that the paper prints of the retrieval experiment but sizes and numbers of steps."""
    config.networks = 100
    config.alignment.encode = False
    config.condition.entries = ("caml",)  # A.4.2
    config.codec.form = "autoencoder_kl"
    config.codec.update(reconstruction="sse", kl_weight=1e-2, task_weight=0.0, diversity_weight=0.0)
    config.codec.recipe.update(_CODEC)
    config.codec.networks = 8  # of each of four sets
    config.velocity.kind = "unet"
    config.velocity.sizes = ConfigDict(
        {
            "model_channels": 32,
            "channel_mult": (1, 2),
            "num_res_blocks": 1,
            "num_heads": 2,
            "num_groups": 8,
            "use_scale_shift_norm": True,
            "time_scale": 1000.0,
            "embedding_dim": 128,
            "injection": "time",  # A.4.2
            "condition_channels": 0,
            "wide": False,
        }
    )
    config.flow.update(target="members", source="kaiming_normal", condition_noise=0.0)
    config.flow.recipe.update(_CODEC)
    config.sampling.steps = 100  # Table 6: NFE


def published(config: ConfigDict) -> None:
    """The printed recipe on the zoos of `real`, narrower and shorter, for two cores.

    Beside it stand designs that change one thing each to what this project has in its place.
    """
    ours = config.copy_and_resolve_references()
    printed(config)
    config.networks = 0  # all that a zoo has, 80
    config.codec.sizes = ConfigDict(
        {
            "ch": 8,
            "ch_mult": (1, 1, 2),  # to the paper's latent, 4 x 4 x 4
            "num_res_blocks": 1,
            "z_channels": 4,
            "embed_dim": 4,
            "resolution": 16,
        }
    )
    config.codec.recipe.steps = 4000
    config.flow.recipe.steps = 4000
    config.ddpm.recipe.steps = 2000
    config.sampling.samples = 24
    config.prior.recipe.update(steps=1000, batch=32, weight_decay=2e-6)
    task = {name: ours.codec[name] for name in ("task_weight", "task_balance", "diversity_weight")}
    config.beside = ConfigDict(
        {
            "with_task_loss": {"codec": {**task, "recipe": {"steps": 2000}}},
            "with_mixes": {"flow": {"target": "mixes"}},
            "with_alignment": {"alignment": {"encode": True}},
            "with_mlp_codec": {
                "codec": {
                    name: ours.codec[name]
                    for name in ("form", "sizes", "reconstruction", "kl_weight", "networks")
                }
            },
            "with_features": {
                "condition": {"entries": ours.condition.entries},
                "flow": {"condition_noise": ours.flow.condition_noise},
            },
            "with_gaussian_source": {"flow": {"source": "gaussian"}},
            "with_mlp_velocity": {"velocity": ours.velocity},
        }
    )
    config.initialise.update(epochs=(0, 1), runs=2, rates=(1.0, 3.0))
