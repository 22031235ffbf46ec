"""A trained generator adapted to a new data set (paper section 3.1, A.4.4, Tables 4 and 9).

    python -m experiments.adapt
    python -m experiments.adapt --config=configs/adapt.py:tiny
    python -m experiments.adapt --config=configs/adapt.py:cifar10_stl10

`default` adapts a generator of networks for Latin characters to Greek ones, both embedded, in some
ten minutes on two cores; `tiny` does every stage, and its figures mean nothing. SOURCE_NEW has the
small CNNs of the zoos folder: cifar10_stl10, stl10_cifar10, cifar10_svhn_cropped, mnist_kmnist and
mnist_usps. A cell of Table 4 is NETWORK_SOURCE_NEW_ENCODER: NETWORK is cnn, CNN-medium whole, or
resnet18, its last two normalisations; SOURCE and NEW are cifar10 and stl10, or the other way round;
ENCODER is vae or, of cnn, graph. paper_ before a cell has the published sizes (Tables 6, 7, 9 and
10), for a GPU. `table4` has the six cells at two cores' size, `real` these and the small CNNs, one
after the other.

A zoo of your own: --config.targets.NAME.zoo=FOLDER, for a variant with one target. A generator
that is trained already: --config.targets.NAME.base=WORKDIR of a run of unconditional generation or
of retrieval, and base_of=NAME for its target, or for the data set whose networks it shall make.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_parts import recipe
from configs.unconditional import get_config as unconditional
from configs.unconditional_parts import GRAPH, of_seeds, of_states

_SMALL = ("cifar10_stl10", "stl10_cifar10", "cifar10_svhn_cropped", "mnist_kmnist", "mnist_usps")
IMAGES = {"cifar10": 50_000, "stl10": 5_000}  # to train on
_PAIRS = (("cifar10", "stl10"), ("stl10", "cifar10"))
_NETWORKS = {"cnn": ("cnn_medium", ("vae", "graph")), "resnet18": ("resnet18", ("vae",))}
_CELLS = {
    f"{network}_{source}_{new}_{encoder}": (network, source, new, encoder)
    for network, (_, encoders) in _NETWORKS.items()
    for source, new in _PAIRS
    for encoder in encoders
}


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant; see `variants`."""
    if variant not in variants():
        raise ValueError(
            f"configs/adapt.py has no variant {variant!r}; it has {', '.join(variants())}."
        )
    config = _default()
    config.variant = variant
    if variant == "default":
        _embedded(config)
    elif variant == "tiny":
        _tiny(config)
    elif variant == "real":
        config.targets = ConfigDict({name: _pair(name) for name in (*_SMALL, *_CELLS)})
    elif variant == "table4":
        config.targets = ConfigDict({name: _pair(name) for name in _CELLS})
    elif variant.startswith("paper_"):
        _paper(config, variant.removeprefix("paper_"))
    else:
        config.targets = ConfigDict({variant: _pair(variant)})
    return config.lock()


def variants() -> tuple[str, ...]:
    """Names of all variants."""
    paper = tuple(f"paper_{cell}" for cell in _CELLS)
    return ("default", "tiny", "real", "table4", *_SMALL, *_CELLS, *paper)


def _pair(name: str) -> ConfigDict:
    if name in _CELLS:
        network, source, new, encoder = _CELLS[name]
        folder = "zoos/resnet18_cifar10" if (network, source) == ("resnet18", "cifar10") else ""
        target = _target(f"{_NETWORKS[network][0]}_{source}", "states", folder, new)
        if encoder == "graph":
            target.design = ConfigDict(GRAPH)
        return target
    source, new = name.split("_", 1)
    return _target(f"{source}_short", "seeds", f"zoos/{source}_short", new)


def _paper(config: ConfigDict, name: str) -> None:
    """A cell of Table 4 with the published sizes; the paper prints no batch of this."""
    network, source, new, encoder = _CELLS[name]
    like = unconditional(f"paper_{network}_{source}_{encoder}")
    target = _target(f"paper_{network}_{source}", "states", "", new)
    target.design = like.states.beside["graph" if encoder == "graph" else "kl"]
    config.targets = ConfigDict({name: target})
    config.states = like.states
    config.states.beside = ConfigDict({})
    config.sampling.steps = 100
    config.adapt.parts = ("velocity",)
    config.adapt.recipe.update(steps=100 * IMAGES[new] // 128, batch=128)  # 100 epochs
    config.adapt.rates.velocity = (1e-5,) if network == "cnn" else (1e-2,)
    config.evaluation.test_images.states = 0


def _target(variant: str, kind: str, zoo: str, new: str) -> ConfigDict:
    of = {"zoo": zoo, "variant": variant, "kind": kind, "align": kind == "seeds", "brief": False}
    # MNIST's digits have a margin, USPS's have none.
    given = {"base": "", "base_of": "", "design": {}}
    return ConfigDict({**of, "new": new, "margin": 3 if new == "usps" else 0, **given})


def _default() -> ConfigDict:
    config = ConfigDict()
    config.variant = "default"
    config.seed = 0
    config.share = True  # what does not depend on the seed lies beside the workdirs
    config.tensorboard = False
    config.data = ConfigDict(
        {
            "dir": "data",  # of the prepared image sets
            # Of the training images, where a zoo does not say which its networks saw, and of the
            # new data set: what is chosen by.
            "validation_share": 1 / 6,
            "split_seed": 42,
            "new_images": 0,  # the first so many of the new set's training images; 0: all
        }
    )
    # Zoos whose generators are adapted, each to a data set `new`. A folder, or "" for the variant
    # of configs/trajectory.py (kind states) or configs/zoo.py (kind seeds), trained here. Brief: no
    # other ways of adapting, no few images, no curves of fine-tuning and no table of the cut.
    config.targets = ConfigDict({})
    config.held_out_every = 10  # of the states of a trajectory
    # Of a trajectory that is trained here; zeros take the variant's own.
    config.trajectory = ConfigDict(
        {"seed": 1, "epochs": 0, "count": 0, "every": 0, "test_images": 0}
    )
    # Of a zoo of seeds that is trained here.
    config.trained = ConfigDict({"count": 40, "held_out": 0.25, "epochs": 8, "save_epochs": (8,)})
    # The generators; no designs beside.
    config.states, config.seeds = of_states(), of_seeds()
    for group in (config.states, config.seeds):
        group.beside = ConfigDict({})
    config.sampling = ConfigDict({"samples": 20, "solver": "euler", "steps": 10})
    config.adapt = ConfigDict(
        {
            "parts": ("velocity", "residual", "decoder"),
            "shown": 20,  # new images of each class, to a generator that is shown images
            "match_names": True,  # classes of one name to the same output, before anything
            "networks": 8,  # drawn anew at each step
            "recipe": recipe(1000, 32, 1e-3, 0.0, clip=1.0, validate_every=100),
            "gradient_from": 0.4,  # t' of the velocity's gradient (paper, A.4.4)
            "diversity_weight": 1.0,  # of the decoder alone
            "diversity_target": 0.7,
            # Learning rates, chosen by validation images.
            "rates": {
                "velocity": (3e-4, 1e-3),
                "residual": (0.03, 0.06),
                "decoder": (1e-3,),
                "plain": (1e-3, 4e-3),
                "refined": (0.03, 0.1),
                "head": (1e-3, 1e-2),
            },
        }
    )
    config.adjoint = ConfigDict(
        {"networks": 8, "steps": 20, "strength": 100.0, "last": 5, "others": 5, "largest": 0.0}
        | {"recipe": recipe(300, 32, 3e-4, 0.0, clip=1.0, validate_every=50)}
    )
    config.reweighted = ConfigDict(
        {"rounds": 8, "networks": 64, "images": 512, "temperature": 0.1}
        | {"recipe": recipe(125, 64, 3e-4, 0.0, clip=1.0)}
    )
    config.rivals = ConfigDict(
        {
            "networks": 8,  # that are trained on, each so many steps as an adaptation has
            "spread": (20, 100),  # networks that share the steps of those
            "curve": (30, 100, 300),  # fewer steps of plain fine-tuning, for a figure
            "few": (50, 200),  # images
            "few_steps": 200,
            "tuned_on": 2,
        }
    )
    # Of the solver; the first of them is that of sampling, with which velocities are trained by t'.
    config.cut = ConfigDict(
        {"times": (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), "steps": (10, 100), "trained": 300}
    )
    config.evaluation = ConfigDict(
        {
            # The first so many, by the kind of a zoo; 0: all.
            "test_images": {"states": 2000, "seeds": 0},
            "choice_images": 1000,  # the first so many; 0: all
            "statistics_images": 2000,  # training images that BatchNorm's statistics are of
            "matching_images": 60,  # on which units are matched for distances
            "networks": 0,  # of the zoo, whose distances are the unit of diversity; 0: all
            "performant": 0.918,  # times the zoo's median accuracy
        }
    )
    return config


def _embedded(config: ConfigDict) -> None:
    """From nothing."""
    config.targets = ConfigDict({"latin_greek": _target("latin", "seeds", "", "greek")})
    config.trained.update(count=32, epochs=6, save_epochs=(6,))
    config.seeds.codec.recipe.steps = 1000
    config.seeds.codec.sizes.hidden_dim = 256
    config.adapt.recipe.steps = 600


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes."""
    config.targets = ConfigDict({"latin_greek": _target("latin", "seeds", "", "greek")})
    config.trained.update(count=24, epochs=1, save_epochs=(1,))
    for group in (config.states, config.seeds):
        group.codec.sizes = ConfigDict({"latent_shape": (2, 2, 1), "hidden_dim": 16})
        group.codec.update(images=8, mixes=3)
        group.velocity.sizes.hidden_dims = (16,)
        for part in (group.codec, group.flow):
            part.recipe.update(steps=10, batch=6, save_every=10, log_every=10)
    config.sampling.update(samples=4, steps=3)
    config.adapt.networks = 2
    config.adapt.recipe.update(steps=4, batch=4, save_every=4, log_every=4)
    for name, rates in config.adapt.rates.items():
        config.adapt.rates[name] = rates[:1]
    config.adjoint.update(networks=2, steps=4, last=1, others=1)
    config.reweighted.update(rounds=2, networks=4, images=8)
    for part in (config.adjoint, config.reweighted):
        part.recipe.update(steps=3, batch=4, save_every=3, log_every=3)
    config.rivals.update(networks=2, spread=(3,), few=(20,), few_steps=3, tuned_on=1)
    config.rivals.curve = (2,)
    config.cut.update(times=(0.0, 0.5), steps=(3,), trained=3)
    config.evaluation.test_images.update(states=50, seeds=50)
    config.evaluation.update(choice_images=50, matching_images=20, statistics_images=50)
