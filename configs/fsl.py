"""Few-shot learning: heads of a frozen backbone, generated from a support set (paper section 3.2).

    python -m experiments.fewshot --config=configs/fsl.py            # two cores
    python -m experiments.fewshot --config=configs/fsl.py:tiny       # every stage, a minute
    python -m experiments.fewshot --config=configs/fsl.py:unet       # the flat latent and UNet
    python -m experiments.fewshot --config=configs/fsl.py:mini_imagenet       # real images
    python -m experiments.fewshot --config=configs/fsl.py:mini_imagenet_tiny  # every stage of it
    python -m experiments.fewshot --config=configs/fsl.py:published  # the paper's recipe, narrower
    python -m experiments.fewshot --config=configs/fsl.py:paper      # the paper's sizes, for a GPU

Any field can be set on the command line: --config.flow.recipe.steps=500. What each variant reaches
stands in the README.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_paper import paper, published, published_mini_imagenet
from configs.fsl_parts import flat_unet, graph_sizes, recipe
from configs.fsl_real import mini_imagenet


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant: `default`, `tiny`, `unet`, `mini_imagenet` and so on."""
    variants = {
        "default": lambda config: None,
        "tiny": _tiny,
        "unet": _unet,
        "mini_imagenet": mini_imagenet,
        "mini_imagenet_tiny": _mini_imagenet_tiny,
        "published": published,
        "published_mini_imagenet": published_mini_imagenet,
        "paper": paper,
    }
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
    # Whether runs in the same folder share backbones, features and target heads.
    config.share = True

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
            "seed": -1,  # of the tasks; -1: the run's
            "settings": ("5-way 1-shot",),  # measured; the first is the main one
            "way": 5,  # trained with
            "shots": (1,),  # trained with, ascending
            "query": 15,  # images a class, at validation and test
            "train": 20_000,  # of all shots together
            "validation": 200,
            "test": 100,
            "train_query": 5,  # images a class and step, out of `query`
        }
    )
    config.encoder = ConfigDict(
        {
            # trained: the backbone below. resnet12, resnet18, vit, clip_vit, convnext: weights of
            # a file. function: a Python function of your own.
            "kind": "trained",
            "weights": "",  # a .safetensors or PyTorch file
            "function": "",  # "package.module:function"
            "side": 0,  # images are resized to it; 0: taken as they are
            "mean": (),  # of each channel, of images in [0, 1]; (): none
            "std": (),
            "mirror": False,  # add the features of the mirror image
        }
    )
    config.transform = ConfigDict({"unit_first": False})  # bring features to unit length first
    config.backbone = ConfigDict(
        {
            "seed": -1,  # -1: the run's
            "channels": (8, 16, 32, 64),
            "images_per_class": 0,  # 0: all
            "augmentation": "none",
            "recipe": recipe(800, 128, 0.1, 5e-4, optimizer="sgd", momentum=0.9, nesterov=True),
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
    config.logistic = ConfigDict({"inverse_penalties": (0.001, 0.01, 0.1, 1.0)})  # C
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
            # Task losses with larger logits, by what class-mean heads show of training classes
            # being easier than validation classes.
            "sharpened": False,
        }
    )
    config.codec = ConfigDict(
        {
            "form": "token",
            "sizes": {"code_dim": 64, "hidden_dim": 256},
            "encoder": "vae",  # the form's own; or graph, with a form of vectors: fsl.py:unet
            "graph": graph_sizes(),
            "reconstruction": "mse",
            "kl_weight": 1e-6,
            "sigma_in": 0.001,  # paper, A.3.2
            "sigma_lat": 0.5,  # paper, A.3.2
            "task_weight": 30.0,
            "recipe": recipe(1500, 128, 1e-3, 1e-4, warmup=100, clip=1.0),
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
            # Of the class-mean head's logits beside CAML's, in a row of its own.
            "base_weights": (0.5, 1.0, 2.0, 4.0),
            "recipe": recipe(
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
            "recipe": recipe(1500, 128, 1e-3, 1e-4, **generator),
            # Cross-entropy of averaged probabilities through the solver; 0 steps leave it out.
            "ensemble": {
                "members": 6,
                "solver_steps": 3,
                "flow_weight": 0.1,
                "weight": 3.0,
                "recipe": recipe(0, 48, 5e-4, 1e-4, **generator),
            },
        }
    )
    config.ddpm = ConfigDict(
        {
            "timesteps": 1000,
            "task_weight": 30.0,
            "recipe": recipe(1500, 128, 1e-3, 1e-4, **generator),
            "steps": 100,
            "samples": 50,
        }
    )
    config.regression = ConfigDict(
        {"task_weight": 1.0, "recipe": recipe(1500, 128, 1e-3, 1e-4, **generator)}
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
            "curve_tasks": 100,
        }
    )
    # Further designs to measure beside, each with codec, velocity, condition and flow of its own.
    config.beside = ConfigDict()
    return config


def _tiny(config: ConfigDict) -> None:
    """Every stage of the default, as small as it goes: figures mean nothing."""
    config.data.update(train_classes=60, validation_classes=20, images_per_class=20, alike=0.6)
    config.tasks.update(query=5, train=300, validation=20, test=20, train_query=3)
    config.backbone.channels = (4, 4, 8, 8)
    _small(config)


def _small(config: ConfigDict) -> None:
    """Networks and recipes as small as they go."""
    config.sampling.update(samples=8, nfe_curve=(1, 5), curve_samples=4, temperatures=(0.5, 1.0))
    config.ddpm.update(timesteps=100, steps=10)
    config.caml.update(num_layers=1, label_dim=16, mlp_dim=32)
    config.condition.slot_tasks = 100
    config.velocity.sizes.update(width=16, num_layers=1)
    config.codec.sizes.update(code_dim=8, hidden_dim=32)
    _short(config.backbone, config.codec, config.caml, config.flow, config.ddpm, config.regression)
    config.caml.recipe.validate_every = 10


def _short(*parts: ConfigDict) -> None:
    for part in parts:
        part.recipe.update(steps=20, batch=16, warmup=2, save_every=10, log_every=10)
        if "ensemble" in part:
            part.ensemble.recipe.update(steps=0, batch=16)


def _mini_imagenet_tiny(config: ConfigDict) -> None:
    """Every stage of mini_imagenet, as small as it goes: figures mean nothing."""
    mini_imagenet(config)
    config.data.update(train_classes=16, images_per_class=24)
    config.tasks.update(query=5, train=300, validation=20, test=20, train_query=3)
    config.encoder.side = 32
    config.backbone.update(channels=(4, 4, 8, 8), images_per_class=0)
    _small(config)
    del config.beside["flat_unet_plain"]
    _short(config.beside.flat_unet.codec, config.beside.flat_unet.flow)


def _unet(config: ConfigDict) -> None:
    """The paper's shape at two cores' size: one flat latent 8x8x4 of the whole head, a UNet."""
    flat_unet(config)
    config.flow.permute = True
    for part in (config.flow, config.ddpm, config.regression):
        part.recipe.steps = 700
        part.recipe.learning_rate = 2e-3
