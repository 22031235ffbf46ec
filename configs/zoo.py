"""Zoos of trained ConvNets: many seeds, one recipe (paper section 3.1, A.3.1).

    python -m experiments.train_zoo                                      # handwritten digits
    python -m experiments.train_zoo --config=configs/zoo.py:tiny         # every stage, seconds
    python -m experiments.train_zoo --config=configs/zoo.py:latin        # minutes on two cores
    python -m experiments.train_zoo --config=configs/zoo.py:mnist_short  # an hour on two cores
    python -m experiments.train_zoo --config=configs/zoo.py:mnist        # as published

`digits`, `latin`, `greek` and `colour_symbols` are embedded; the others need `python -m
experiments.prepare_data` first, and their variants that are named after a data set alone have the
published hyper-parameters of the "Seed" zoos (Schuerholt et al., Model Zoos, 2022): 50 epochs in
batches of 10, which is a GPU's work. From their initialisation U(0, 1) a network learns late; the
`_short` ones begin at Kaiming's and stop early, the rest being the same. Any field can be set:
--config.networks.count=1000.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

# Table 8 and section 3.1: the ConvNets of the model zoos.
_SMALL = {"channels": (8, 6, 4), "kernels": (5, 5, 2), "pools": (True, True, False)}
_MEDIUM = {"channels": (16, 32, 15), "kernels": (3, 3, 3), "pools": (True, True, True)}
# Name, channels, mean and std of the input, activation, initialisation, learning rate, decay and
# the share of the training images that is set aside for validation.
_PUBLISHED: dict[str, tuple[int, float, float, str, str, float, float, float]] = {
    "mnist": (1, 0.1307, 0.3081, "tanh", "uniform", 3e-4, 0.0, 1 / 6),
    "fashion_mnist": (1, 0.5, 0.5, "tanh", "uniform", 3e-4, 0.0, 1 / 6),
    "kmnist": (1, 0.1307, 0.3081, "tanh", "uniform", 3e-4, 0.0, 1 / 6),  # MNIST's, paper A.3.1
    "usps": (1, 0.1307, 0.3081, "tanh", "uniform", 3e-4, 1e-3, 1291 / 7291),
    "svhn_cropped": (1, 0.5, 0.5, "tanh", "uniform", 3e-3, 0.0, 13257 / 73257),
    "cifar10": (3, 0.5, 0.5, "gelu", "kaiming_uniform", 1e-4, 1e-2, 0.16),
    "cifar100": (3, 0.5, 0.5, "gelu", "kaiming_uniform", 1e-4, 1e-2, 0.16),  # CIFAR-10's
    "stl10": (3, 0.5, 0.5, "tanh", "kaiming_uniform", 1e-4, 1e-3, 0.16),
}
# Characters that are drawn: channels, mean and std of the training images.
_GLYPHS = {"latin": (1, 0.18, 0.28), "greek": (1, 0.19, 0.29), "colour_symbols": (3, 0.5, 0.3)}
_WITH_MEDIUM = ("cifar10", "cifar100", "stl10")
# Epochs of the short variants.
_SHORT = {"mnist": 6, "fashion_mnist": 8, "kmnist": 8, "usps": 50, "svhn_cropped": 8}
_SHORT |= {"cifar10": 8, "cifar100": 8, "stl10": 50}


def get_config(variant: str = "digits") -> ConfigDict:
    """The configuration of a variant; see `variants`."""
    if variant not in variants():
        raise ValueError(
            f"configs/zoo.py has no variant {variant!r}; it has {', '.join(variants())}."
        )
    config = _digits()
    config.variant = variant
    name = variant.removesuffix("_short").removesuffix("_medium")
    if name in _PUBLISHED:
        _published(config, name)
    if variant.endswith("_short"):
        _short(config, name)
    if variant.endswith("_medium"):
        config.network.sizes.update(_MEDIUM)
        config.inputs.size = 32
    if variant in _GLYPHS:
        _glyphs(config, variant)
    if variant == "tiny":
        _tiny(config)
    if variant == "branched":
        config.networks.trunk_epochs = 2
    return config.lock()


def variants() -> tuple[str, ...]:
    """Names of all variants."""
    names = tuple(_PUBLISHED)
    short = tuple(f"{name}_short" for name in names)
    medium = tuple(f"{name}_medium" for name in _WITH_MEDIUM)
    return ("digits", "tiny", "branched", *_GLYPHS, *names, *short, *medium)


def _digits() -> ConfigDict:
    config = ConfigDict()
    config.variant = "digits"
    config.tensorboard = False
    config.data = ConfigDict(
        {
            "name": "digits",
            "dir": "data",  # of the prepared image sets
            "validation_share": 1 / 6,  # of the training images
            "split_seed": 42,
        }
    )
    config.inputs = ConfigDict(_inputs(28, 1, 0.1307, 0.3081))
    config.network = ConfigDict(
        {"name": "cnn", "sizes": {**_SMALL, "hidden": (20,), "activation": "tanh"}}
    )
    config.initialisation = "kaiming_uniform"  # kaiming_uniform, kaiming_normal, uniform, normal
    config.networks = ConfigDict(
        {
            "first_seed": 1,
            "count": 100,
            "held_out": 0.2,  # share of the networks, the last seeds, that no generator may see
            "trunk_epochs": 0,  # epochs that all networks share as one
            "trunk_seed": 0,
        }
    )
    config.recipe = ConfigDict(
        {
            "optimizer": "adam",  # adam couples the decay, as PyTorch's does; adamw, sgd
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "schedule": "constant",
            "momentum": 0.9,  # of sgd
            "batch": 10,
            "epochs": 30,
            "save_epochs": (15, 30),
        }
    )
    return config


def _glyphs(config: ConfigDict, name: str) -> None:
    """The recipe of the digits, fewer networks and epochs: several sets make one small job."""
    config.data.name = name
    config.inputs = ConfigDict(_inputs(28, *_GLYPHS[name]))
    config.networks.update(count=40, held_out=0.25)
    config.recipe.update(epochs=12, save_epochs=(6, 12))


def _published(config: ConfigDict, name: str) -> None:
    channels, mean, std, activation, start, rate, decay, validation = _PUBLISHED[name]
    config.data.name = name
    config.data.validation_share = validation
    config.inputs = ConfigDict(_inputs(28, channels, mean, std))
    if name == "svhn_cropped":
        config.inputs.crop = 28
    config.network.sizes.activation = activation
    config.initialisation = start
    config.networks.count = 1000
    config.recipe.update(
        learning_rate=rate,
        weight_decay=decay,
        epochs=50,
        save_epochs=(*range(21, 26), *range(46, 51)),
    )


def _short(config: ConfigDict, name: str) -> None:
    """The published recipe, but from Kaiming's initialisation and over sooner."""
    epochs = _SHORT[name]
    config.initialisation = "kaiming_uniform"
    config.networks.count = 100
    config.recipe.update(epochs=epochs, save_epochs=(epochs // 2, epochs))


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes: figures mean little."""
    config.networks.count = 8
    config.recipe.update(epochs=2, save_epochs=(0, 1, 2))


def _inputs(size: int, channels: int, mean: float, std: float) -> dict[str, Any]:
    return {
        "size": size,
        "channels": channels,
        "mean": (mean,) * channels,
        "std": (std,) * channels,
        "crop": 0,  # side of the centre that is cut out first; 0: nothing is cut
    }
