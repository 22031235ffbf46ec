"""Trajectory zoos: a network is trained, then 200 states of its further training are saved
(paper section 3.1, A.3.1, table 8).

    python -m experiments.train_trajectory                                      # two minutes
    python -m experiments.train_trajectory --config=configs/trajectory.py:tiny  # seconds
    python -m experiments.train_trajectory --config=configs/trajectory.py:resnet18_cifar10

`digits` is embedded; the others need `python -m experiments.prepare_data` first. NETWORK_DATASET
is cut down to some ten minutes on two cores: NETWORK is cnn_medium, all weights of the zoos' medium
network, or resnet18, vit or convnext, of which the last two normalisations are saved and which are
narrower than the published ones and begin at random; DATASET is mnist, cifar10, cifar100 or stl10.
The variants paper_NETWORK_DATASET, with cnn for cnn_medium, have the published sizes and hyper-
parameters and are a GPU's work. Their ViT and ConvNeXt begin at a file of pretrained weights,
PyTorch's or safetensors, that you have: --config.network.file=FILE. Any field can be set.

Seconds, test accuracy of the base network and of the 200 states: digits 130, 98.8 %, 98.7 ± 0.1;
cnn_medium_cifar10 724, 64.4 %, 64.4 ± 0.7; resnet18_cifar10 812, 55.5 %, 55.6 ± 0.1. Where the
saving rate follows a cosine to zero, as published for the CNN, the last states, which are those
held out, are almost one network; --config.states.recipe.floor=RATE keeps them moving.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

# Mean and std of the input, by channel; of CIFAR and MNIST those of Wang et al.
_STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)),
    "stl10": ((0.5,) * 3, (0.5,) * 3),  # at 32 pixels: the paper does not say
}
_MEDIUM = {"channels": (16, 32, 15), "kernels": (3, 3, 3), "pools": (True, True, True)}
_NETWORKS = ("cnn", "resnet18", "vit", "convnext")
_CUT_DOWN = ("cnn_medium", "resnet18", "vit", "convnext")
_PAPER = "paper_"


def get_config(variant: str = "digits") -> ConfigDict:
    """The configuration of a variant; see `variants`."""
    if variant not in variants():
        raise ValueError(
            f"configs/trajectory.py has no variant {variant!r}; it has {', '.join(variants())}."
        )
    config = _digits()
    config.variant = variant
    if variant == "tiny":
        _tiny(config)
    elif variant != "digits":
        network, _, dataset = variant.removeprefix(_PAPER).rpartition("_")
        _published(config, "cnn" if network == "cnn_medium" else network, dataset)
        if not variant.startswith(_PAPER):
            _cut_down(config)
    return config.lock()


def variants() -> tuple[str, ...]:
    """Names of all variants."""
    paper = tuple(f"{_PAPER}{network}_{data}" for network in _NETWORKS for data in _STATISTICS)
    small = tuple(f"{network}_{data}" for network in _CUT_DOWN for data in _STATISTICS)
    return ("digits", "tiny", *small, *paper)


def _digits() -> ConfigDict:
    """The zoos' medium network on handwritten digits, whole."""
    config = ConfigDict()
    config.variant = "digits"
    config.seed = 1
    config.tensorboard = False
    config.data = ConfigDict(
        {
            "name": "digits",
            "dir": "data",  # of the prepared image sets
            "train_images": 0,  # how many of the training images are used; 0: all
            "test_images": 0,  # how many of the test images judge a state; 0: all
        }
    )
    config.inputs = ConfigDict(
        {"size": 32, "channels": 1, "mean": (0.1307,), "std": (0.3081,), "crop": 0}
    )
    config.augmentation = "none"  # none, crop_flip, resized_crop_flip
    config.network = ConfigDict(
        {
            "name": "cnn",  # cnn, resnet18, vit, convnext
            "sizes": {**_MEDIUM, "hidden": (20,), "activation": "leakyrelu"},
            "start": "random",  # random, file
            "file": "",  # of a PyTorch state dict, where it starts from one
            "part": "all",  # what goes on training and is saved: all, last_norms
        }
    )
    # The network's training, then that of its part, which begins with a new optimizer.
    config.base = _recipe("adamw", 3e-3, 5e-3, batch=64, epochs=40)
    config.states = ConfigDict(
        {
            "count": 200,
            "every": 0,  # steps between two states; 0: an epoch
            "held_out": 0.1,  # share of the states, the last ones, that no generator may see
            "recipe": _recipe("adamw", 1e-3, 5e-3, batch=64),
        }
    )
    return config


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes: figures mean little."""
    config.data.update(train_images=256, test_images=100)
    config.base.epochs = 2
    config.states.update(count=10, every=2)


def _published(config: ConfigDict, network: str, dataset: str) -> None:
    """Table 8; what it does not say is from the code of Wang et al."""
    mean, std = _STATISTICS[dataset]
    config.data.name = dataset
    config.inputs.update(channels=len(mean), mean=mean, std=std)
    config.augmentation = "none" if dataset == "mnist" else "crop_flip"
    {"cnn": _cnn, "resnet18": _resnet18, "vit": _vit, "convnext": _convnext}[network](config)
    if (network, dataset) == ("resnet18", "cifar100"):
        config.base.epochs = 200  # Wang et al.; table 8 has 100 for all
        config.base.milestones = (0.3, 0.6, 0.8)
    config.base.save_every = 2000


def _cnn(config: ConfigDict) -> None:
    channels = config.inputs.channels
    config.inputs.update(mean=(0.5,) * channels, std=(0.5,) * channels)
    config.augmentation = "resized_crop_flip"  # on MNIST as well
    config.base = _recipe("adamw", 3e-3, 5e-3, batch=128, epochs=100)
    config.states.recipe = _recipe("adamw", 1e-3, 5e-3, batch=128)


def _resnet18(config: ConfigDict) -> None:
    _network(config, "resnet18", {"width": 64})
    config.base = _recipe("sgd", 0.1, 5e-4, batch=64, epochs=100, schedule="multistep", gamma=0.2)
    # The fourth milestone is the end, and states are saved at 0.1 * 0.2**4.
    config.base.milestones = (0.3, 0.6, 0.9)
    config.states.recipe = _recipe("sgd", 1.6e-4, 5e-4, batch=64, schedule="constant")
    if config.data.name == "mnist":
        config.inputs.size = 28


def _vit(config: ConfigDict) -> None:
    _network(config, "vit", {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12})
    _pretrained(config)


def _convnext(config: ConfigDict) -> None:
    _network(config, "convnext", {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)})
    _pretrained(config)


def _network(config: ConfigDict, name: str, sizes: dict[str, Any]) -> None:
    config.network = ConfigDict(
        {"name": name, "sizes": sizes, "start": "random", "file": "", "part": "last_norms"}
    )


def _pretrained(config: ConfigDict) -> None:
    """The paper trains from scratch for 100 epochs; its accuracies need pretrained weights."""
    config.network.start = "file"
    mean, std = (tuple(config.inputs[name] * 3)[:3] for name in ("mean", "std"))
    # Pretrained weights want three channels, of MNIST too.
    config.inputs.update(size=224, channels=3, mean=mean, std=std)
    if config.augmentation == "crop_flip":
        config.augmentation = "resized_crop_flip"
    config.base = _recipe("adamw", 1e-4, 1e-4, batch=128, epochs=100)
    config.states.recipe = _recipe("adamw", 5e-2, 5e-4, batch=128)


def _cut_down(config: ConfigDict) -> None:
    """Not the published zoo: fewer epochs, states closer together, a narrower ResNet-18."""
    config.base.save_every = 200
    if config.network.name == "resnet18":
        config.network.sizes.width = 8  # of 64: 256 weights are saved, not 2,048
        config.base.epochs = 2
        config.states.every = 5
        # Five steps lie between two states in place of an epoch's 781, so each is longer.
        config.states.recipe.learning_rate = 1e-2
    elif config.network.name == "cnn":
        config.augmentation = "none"  # ten epochs are too short to need it
        config.base.epochs = 10
        config.states.every = 10
    else:
        config.augmentation = "none"
        config.network.update(start="random")
        config.inputs.size = 32  # of 224
        sizes = {
            "vit": {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4},
            "convnext": {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)},
        }
        config.network.sizes = ConfigDict(sizes[config.network.name])
        config.base.update(epochs=2, learning_rate=1e-3)
        config.states.update(every=5)
        config.states.recipe.learning_rate = 5e-3  # a tenth: steps follow one another, not epochs


def _recipe(
    optimizer: str,
    learning_rate: float,
    weight_decay: float,
    *,
    batch: int,
    epochs: int = 0,
    schedule: str = "cosine",
    gamma: float = 0.1,
) -> ConfigDict:
    recipe = ConfigDict(
        {
            "optimizer": optimizer,  # adamw, adam, sgd
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "momentum": 0.9,  # of sgd
            "schedule": schedule,  # constant, cosine, multistep
            "milestones": (0.3, 0.6, 0.9),  # of multistep: shares of the run
            "gamma": gamma,  # of multistep
            "floor": 0.0,  # of cosine and multistep: the smallest rate
            "batch": batch,
        }
    )
    if epochs:
        recipe.epochs = epochs
        recipe.save_every = 200  # steps between checkpoints
    return recipe
