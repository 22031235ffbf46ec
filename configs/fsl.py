"""Few-shot learning: heads of a frozen backbone, generated from a support set (paper section 3.2).

    python -m experiments.fewshot --config=configs/fsl.py            # two cores
    python -m experiments.fewshot --config=configs/fsl.py:tiny       # every stage, under a minute
    python -m experiments.fewshot --config=configs/fsl.py:unet       # the flat latent and UNet
    python -m experiments.fewshot --config=configs/fsl.py:paper      # the paper's sizes, for a GPU

Any field can be set on the command line: --config.flow.recipe.steps=500. What each variant reaches
stands in the README.
"""

from __future__ import annotations

from ml_collections import ConfigDict


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant: `default`, `tiny`, `unet` or `paper`."""
    variants = {"default": lambda config: None, "tiny": _tiny, "unet": _unet, "paper": _paper}
    if variant not in variants:
        raise ValueError(
            f"configs/fsl.py has no variant {variant!r}; it has {', '.join(variants)}."
        )
    config = _default()
    config.variant = variant
    variants[variant](config)
    return config.lock()


def _default() -> ConfigDict:
    config = ConfigDict()
    config.variant = "default"
    config.seed = 0
    config.tensorboard = False

    config.data = ConfigDict(
        {
            "name": "glyphs",
            "seed": 0,  # of the images and of the split; the same for all seeds of a run
            "alike": 0.85,  # cosine above which two characters are one class
            "train_classes": 700,
            "validation_classes": 100,  # the rest is meta-test
            "images_per_class": 40,
            "jitter": 1.2,
        }
    )
    config.tasks = ConfigDict(
        {
            "way": 5,
            "shot": 1,
            "query": 15,  # images a class, at validation and test
            "train": 20_000,
            "validation": 200,
            "test": 100,
            "train_query": 5,  # images a class and step, out of `query`
        }
    )
    config.backbone = ConfigDict(
        {
            "channels": (8, 16, 32, 64),
            "recipe": _recipe(800, 128, 0.1, 5e-4, optimizer="sgd", momentum=0.9, nesterov=True),
        }
    )
    # The probe: 100 steps of AdamW from zeros; its feature length is chosen on validation tasks.
    config.probe = ConfigDict(
        {
            "steps": 100,
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "use_bias": False,
            "lengths": (1.0, 8.0, 32.0),
        }
    )
    config.ridge = ConfigDict({"l2": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)})
    config.targets = ConfigDict(
        {
            "kind": "adamw",  # adamw or lda
            "shots": 1,  # images a class that a target head is fitted on
            "shrinkage": 0.1,  # of lda's within-class covariance
            # Divisor of all targets, by the query loss on training tasks; (1.0,) leaves them.
            "temperatures": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
            "base_scales": (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0),  # of a class-mean base; () none
            "centred": True,
            "standardised": True,
        }
    )
    config.codec = ConfigDict(
        {
            "form": "token",
            "sizes": {"code_dim": 64, "hidden_dim": 256},
            "reconstruction": "mse",
            "kl_weight": 1e-6,
            "sigma_in": 0.001,  # paper, A.3.2
            "sigma_lat": 0.5,  # paper, A.3.2
            "task_weight": 30.0,
            "recipe": _recipe(1500, 128, 1e-3, 1e-4, warmup=100, clip=1.0),
        }
    )
    config.caml = ConfigDict(
        {
            "num_classes": 10,
            "label_dim": 32,
            "num_layers": 3,
            "num_heads": 4,
            "mlp_dim": 192,
            "query": 3,
            "noise": 0.3,
            "recipe": _recipe(
                800, 64, 1e-3, 1e-4, warmup=100, clip=1.0, ema_decay=0.998, validate_every=200
            ),
        }
    )
    config.condition = ConfigDict({"entries": ("features",), "noise": 0.3, "slot_tasks": 4000})
    config.velocity = ConfigDict(
        {
            "kind": "token_transformer",
            "sizes": {"width": 96, "num_layers": 2, "num_heads": 4},
        }
    )
    generator = {"warmup": 100, "clip": 1.0, "ema_decay": 0.998}
    config.flow = ConfigDict(
        {
            "source": "gaussian",
            "coupling": "independent",
            "sigma": 0.0,
            "task_weight": 30.0,
            "permute": False,
            "recipe": _recipe(1500, 128, 1e-3, 1e-4, **generator),
            # Cross-entropy of averaged probabilities through the solver; 0 steps leave it out.
            "ensemble": {
                "members": 6,
                "solver_steps": 3,
                "flow_weight": 0.1,
                "weight": 3.0,
                "recipe": _recipe(0, 48, 5e-4, 1e-4, **generator),
            },
        }
    )
    config.ddpm = ConfigDict(
        {
            "timesteps": 1000,
            "task_weight": 30.0,
            "recipe": _recipe(1500, 128, 1e-3, 1e-4, **generator),
            "steps": 100,
        }
    )
    config.regression = ConfigDict(
        {"task_weight": 1.0, "recipe": _recipe(1500, 128, 1e-3, 1e-4, **generator)}
    )
    config.sampling = ConfigDict(
        {
            "samples": 50,
            "top": 3,
            "solver": "euler",
            "steps": 10,
            # Chosen on validation tasks, by the likelihood of the averaged probabilities.
            "temperatures": (0.3, 0.5, 0.7, 1.0),
            "nfe_curve": (1, 2, 5, 10, 25, 100),
            "curve_samples": 10,
        }
    )
    return config


def _tiny(config: ConfigDict) -> None:
    """Every stage of the default, as small as it goes: figures mean nothing."""
    config.data.update(train_classes=60, validation_classes=20, images_per_class=20, alike=0.6)
    config.tasks.update(query=5, train=300, validation=20, test=20, train_query=3)
    config.backbone.channels = (4, 4, 8, 8)
    config.sampling.update(samples=8, nfe_curve=(1, 5), curve_samples=4, temperatures=(0.5, 1.0))
    config.ddpm.update(timesteps=100, steps=10)
    config.caml.update(num_layers=1, label_dim=16, mlp_dim=32)
    config.condition.slot_tasks = 100
    config.velocity.sizes.update(width=16, num_layers=1)
    config.codec.sizes.update(code_dim=8, hidden_dim=32)
    parts = (config.backbone, config.codec, config.caml, config.flow, config.flow.ensemble)
    for part in (*parts, config.ddpm, config.regression):
        part.recipe.update(steps=20, batch=16, warmup=2, save_every=10, log_every=10)
    config.flow.ensemble.recipe.steps = 0
    config.caml.recipe.validate_every = 10


def _unet(config: ConfigDict) -> None:
    """The paper's shape at two cores' size: one flat latent 8x8x4 of the whole head, a UNet."""
    config.codec.form = "mlp"
    config.codec.sizes = ConfigDict({"latent_shape": (8, 8, 4), "hidden_dim": 512})
    config.velocity.kind = "unet"
    config.velocity.sizes = ConfigDict(
        {
            "model_channels": 16,
            "channel_mult": (1, 2),
            "num_res_blocks": 1,
            "num_heads": 2,
            "num_groups": 8,
            "use_scale_shift_norm": True,
            "time_scale": 1000.0,
            "embedding_dim": 128,
            "injection": "both",
            "condition_channels": 8,
            "wide": True,
        }
    )
    config.flow.permute = True
    for part in (config.flow, config.ddpm, config.regression):
        part.recipe.steps = 700
        part.recipe.learning_rate = 2e-3


def _paper(config: ConfigDict) -> None:
    """The paper's values, each with its place; on the embedded glyphs instead of mini-ImageNet."""
    config.tasks.train = 50_000  # section 3.2
    config.tasks.test = 100  # section 3.2
    config.backbone.channels = (64, 128, 256, 512)  # ResNet-12 of Chen et al., section 3.2
    config.backbone.recipe.steps = 22_000  # 100 epochs of 28,000 images
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
    config.codec.reconstruction = "sse"  # eq. 2
    config.codec.kl_weight = 1e-6  # Table 6
    config.codec.task_weight = 0.0
    config.codec.recipe = _recipe(  # Table 6: 1e-2, 2e-6, 128, 100-500 epochs of 391 steps
        39_100, 128, 1e-2, 2e-6, schedule="constant", save_every=2000
    )
    config.caml.update(num_layers=24, num_heads=16, mlp_dim=4096, label_dim=256)  # Fifty et al.
    config.caml.recipe = _recipe(
        50_000, 64, 1e-5, 0.0, warmup=1000, clip=1.0, validate_every=5000, save_every=5000
    )
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
    config.flow.recipe = _recipe(  # Table 6: 2e-4, 2e-6, 128, 100-500 epochs of 391 steps
        39_100, 128, 2e-4, 2e-6, schedule="constant", ema_decay=0.9999, save_every=2000
    )
    config.flow.ensemble.recipe.steps = 0
    config.ddpm.task_weight = 0.0
    config.ddpm.recipe = config.flow.recipe.copy_and_resolve_references()
    config.regression.task_weight = 0.0
    config.regression.recipe = config.flow.recipe.copy_and_resolve_references()
    config.sampling.steps = 100  # Table 6: NFE
    config.sampling.temperatures = (1.0,)


def _recipe(
    steps: int, batch: int, learning_rate: float, weight_decay: float, **more: object
) -> ConfigDict:
    recipe = ConfigDict(
        {
            "steps": steps,
            "batch": batch,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "schedule": "cosine",
            "warmup": 0,
            "clip": 0.0,  # 0: none
            "optimizer": "adamw",
            "momentum": 0.9,
            "nesterov": False,
            "ema_decay": 0.0,  # 0: none
            "save_every": 200,
            "log_every": 50,
            "validate_every": 0,  # 0: none
        }
    )
    recipe.update(more)
    return recipe
