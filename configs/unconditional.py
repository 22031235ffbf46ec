"""Generators of one zoo's networks, beside what is no model (paper section 3.1, A.4.1, Table 1).

    python -m experiments.unconditional
    python -m experiments.unconditional --config=configs/unconditional.py:tiny
    python -m experiments.unconditional --config=configs/unconditional.py:cnn_cifar10_vae

`default` has states of one network and networks of several seeds, both on embedded images; `tiny`
does every stage, and its figures mean nothing. A cell of Table 1 is NETWORK_DATASET_ENCODER:
NETWORK is cnn (whole), resnet18, vit or convnext (their last two normalisations), DATASET mnist,
cifar10, cifar100 or stl10, ENCODER vae or, of cnn, graph. These are cut down to two cores'
size, the networks themselves as `configs/trajectory.py` says; paper_ before the name has the
published sizes (Tables 6 to 8 and 10), for a GPU. `seeds_DATASET` has the small CNNs of the zoos
folder, aligned and as they are. `published` has the paper's recipe, at two cores' size, beside ours
on two cells. `real` has all cells that two cores can train, one after the other;
`table1` those of them that are states, `seeds` the others.

A zoo of your own: --config.targets.NAME.zoo=FOLDER, for a variant with one target.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.fsl_parts import paper_graph, recipe
from configs.unconditional_parts import PUBLISHED, of_seeds, of_states, pdiff

NETWORKS = ("cnn", "resnet18", "vit", "convnext")
DATASETS = ("mnist", "cifar10", "cifar100", "stl10")
SEED_ZOOS = ("mnist", "fashion_mnist", "cifar10", "stl10")
# What two cores train within minutes each.
_TABLE1 = (
    "cnn_mnist",
    "cnn_cifar10",
    "cnn_cifar100",
    "cnn_stl10",
    "resnet18_cifar10",
    "vit_cifar10",
    "convnext_cifar10",
)
_CELLS = tuple(f"{network}_{data}" for network in NETWORKS for data in DATASETS)
# Where networks are less sure, the task loss needs more steps, and more weight against the others.
_MORE: dict[str, Any] = {"codec": {"task_weight": 0.3, "recipe": {"steps": 6000}}}
_LONGER = {"cifar10": _MORE, "stl10": _MORE}
_STATES = {"cnn": "cnn_medium", "resnet18": "resnet18", "vit": "vit", "convnext": "convnext"}


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant; see `variants`."""
    if variant not in variants():
        raise ValueError(
            f"configs/unconditional.py has no variant {variant!r}; it has {', '.join(variants())}."
        )
    config = _default()
    config.variant = variant
    name = variant.removeprefix("paper_")
    if variant == "default":
        _embedded(config)
    elif variant == "tiny":
        _tiny(config)
    elif variant == "real":
        config.targets = ConfigDict({**_cells(_TABLE1), **_seeds(SEED_ZOOS), **_raw(SEED_ZOOS)})
    elif variant == "table1":
        config.targets = ConfigDict(_cells(_TABLE1))
    elif variant == "seeds":
        config.targets = ConfigDict({**_seeds(SEED_ZOOS), **_raw(SEED_ZOOS)})
    elif variant == "published":
        config.targets = ConfigDict(_cells(("cnn_cifar10", "resnet18_cifar10")))
        config.states.beside = ConfigDict(PUBLISHED)
    elif variant.startswith("seeds_"):
        config.targets = ConfigDict(_seeds((variant.removeprefix("seeds_"),)))
    elif variant.startswith("raw_"):
        config.targets = ConfigDict(_raw((variant.removeprefix("raw_"),)))
    elif variant in _CELLS:
        config.targets = ConfigDict(_cells((variant,)))
    else:
        cell, encoder = name.rsplit("_", 1)
        config.targets = ConfigDict(_cells((cell,), paper=variant != name))
        _cell(config, encoder)
        if variant != name:
            _paper(config, encoder)
    return config.lock()


def variants() -> tuple[str, ...]:
    """Names of all variants."""
    encoders = {"cnn": ("vae", "graph")}
    cells = tuple(
        f"{cell}_{encoder}"
        for cell in _CELLS
        for encoder in encoders.get(cell.split("_")[0], ("vae",))
    )
    seeds = tuple(f"{how}_{name}" for how in ("seeds", "raw") for name in SEED_ZOOS)
    paper = tuple(f"paper_{cell}" for cell in cells)
    return (
        "default",
        "tiny",
        "real",
        "table1",
        "published",
        "seeds",
        *seeds,
        *_CELLS,
        *cells,
        *paper,
    )


def _target(variant: str, kind: str = "states", zoo: str = "", align: bool = False) -> ConfigDict:
    # brief: without the designs beside, without p-diff, and without rows that are trained on.
    of = {"zoo": zoo, "variant": variant, "kind": kind, "align": align, "brief": False}
    # What the kind's group has otherwise for this target: of the main design, and of those beside.
    return ConfigDict({**of, "design": {}, "beside": {}})


def _cells(names: tuple[str, ...], paper: bool = False) -> dict[str, ConfigDict]:
    found = {}
    for name in names:
        network, data = name.split("_", 1)
        own = network if paper else _STATES[network]
        found[name] = _target(f"{'paper_' * paper}{own}_{data}")
    if "resnet18_cifar10" in found and not paper:
        found["resnet18_cifar10"].zoo = "zoos/resnet18_cifar10"
    return found


def _seeds(names: tuple[str, ...]) -> dict[str, ConfigDict]:
    found = {n: _target(f"{n}_short", "seeds", f"zoos/{n}_short", align=True) for n in names}
    for name, target in found.items():
        target.design = ConfigDict(_LONGER.get(name, {}))
    return found


def _raw(names: tuple[str, ...]) -> dict[str, ConfigDict]:
    found = {f"{n}_raw": _target(f"{n}_short", "seeds", f"zoos/{n}_short") for n in names}
    for name, target in found.items():
        target.brief = True
        target.design = ConfigDict(_LONGER.get(name.removesuffix("_raw"), {}))
    return found


def _default() -> ConfigDict:
    config = ConfigDict()
    config.variant = "default"
    config.seed = 0
    config.share = True  # what does not depend on the seed lies beside the workdirs
    config.tensorboard = False
    config.data = ConfigDict(
        {
            "dir": "data",  # of the prepared image sets
            # Of the training images, where a zoo does not say which its networks saw.
            "validation_share": 1 / 6,
            "split_seed": 42,
        }
    )
    # Zoos, each with generators of its own: a folder, or "" for the variant of
    # configs/trajectory.py (kind states) or configs/zoo.py (kind seeds), trained here.
    config.targets = ConfigDict({})
    config.held_out_every = 10  # of the states of a trajectory
    # Of a trajectory that is trained here; zeros take the variant's own.
    config.trajectory = ConfigDict(
        {"seed": 1, "epochs": 0, "count": 0, "every": 0, "test_images": 0}
    )
    # Of a zoo of seeds that is trained here.
    config.trained = ConfigDict({"count": 40, "held_out": 0.25, "epochs": 8, "save_epochs": (8,)})
    config.states, config.seeds = of_states(), of_seeds()
    config.ddpm = ConfigDict(
        {"timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "steps": 100}
        | {"recipe": recipe(3000, 64, 1e-3, 0.0, clip=1.0, ema_decay=0.999)}
    )
    config.pca = ConfigDict({"components": 64})  # at most as many as there are
    config.pdiff = pdiff()
    config.sampling = ConfigDict({"samples": 50, "solver": "euler", "steps": 100})
    config.rivals = ConfigDict(
        {
            "averaged": 16,  # networks of an average
            "components": 64,  # of the Gaussian in principal components
            # Noise, in deviations of each tensor over the networks: the largest of these at which
            # accuracy on images to choose by falls by at most so much.
            "strengths": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5),
            "losses": (0.002, 0.02),
            "tuned_on": 10,  # networks
        }
    )
    # Averages of two, and random starts, trained on; of seeds alone.
    config.trained_on = ConfigDict(
        {
            "steps": (300, 1000, 3000),  # of averages; random starts take the most
            "batch": 10,
            "networks": 24,
            "rates": (1e-3, 4e-3),  # chosen on images to choose by
            "tuned_on": 4,
        }
    )
    config.fresh = ConfigDict({"networks": 3})  # of a trajectory's recipe, with other seeds
    config.evaluation = ConfigDict(
        {
            # The first so many, by the kind of a zoo; 0: all.
            "test_images": {"states": 2000, "seeds": 0},
            "choice_images": 2000,  # the first so many; 0: all
            "statistics_images": 2000,  # training images that BatchNorm's statistics are of
            "matching_images": 60,  # on which units are matched for distances
            "networks": 0,  # of the zoo, whose distances are the unit of diversity; 0: all
            "performant": 0.918,  # times the zoo's median accuracy
        }
    )
    return config


def _embedded(config: ConfigDict) -> None:
    """From nothing, with short trainings; much of the time is compilation."""
    config.targets = ConfigDict(
        {"digits": _target("digits"), "latin": _target("latin", "seeds", align=True)}
    )
    config.trajectory.update(epochs=15)
    config.trained.update(count=32, epochs=6, save_epochs=(6,))
    config.seeds.codec.recipe.steps = 1000
    config.seeds.codec.sizes.hidden_dim = 256
    for name in ("kl", "graph"):
        del config.seeds.beside[name]
    config.trained_on.update(steps=(300, 1000), rates=(4e-3,))
    config.fresh.networks = 2


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes."""
    config.targets = ConfigDict(
        {"digits": _target("tiny"), "latin": _target("latin", "seeds", align=True)}
    )
    config.trajectory.update(epochs=1, count=20, every=1)
    config.trained.update(count=24, epochs=1, save_epochs=(1,))
    kl: dict[str, Any] = {
        "ch": 4,
        "ch_mult": (1,),
        "num_res_blocks": 1,
        "z_channels": 1,
        "embed_dim": 1,
    }
    graph: dict[str, Any] = {
        "node_dim": 8,
        "edge_dim": 4,
        "attention_dim": 4,
        "num_heads": 2,
        "num_layers": 1,
    }
    graph |= {"node_hidden": 8, "edge_hidden": 4, "frequencies": 4, "head_dims": (8,)}
    for group in (config.states, config.seeds):
        group.codec.sizes = ConfigDict({"latent_shape": (2, 2, 1), "hidden_dim": 16})
        group.codec.update(images=8, mixes=3)
        group.codec.graph.update(graph)
        group.velocity.sizes.hidden_dims = (16,)
        for part in (group.codec, group.flow):
            part.recipe.update(steps=10, batch=6, save_every=10, log_every=10)
        for beside in group.beside.values():
            if "recipe" in beside.get("codec", {}):
                beside.codec.recipe.update(steps=4, batch=4)
        group.beside.kl.codec.sizes = ConfigDict({**kl, "resolution": 4})
        group.beside.kl.velocity.sizes.update(model_channels=8, channel_mult=(1,), num_groups=2)
        group.beside.kl.flow.recipe.update(steps=4, batch=4)
        group.beside.graph.codec.sizes = ConfigDict({"latent_shape": (2, 2, 1), "hidden_dim": 16})
        group.beside.graph.codec.recipe.warmup = 1
    for name in ("kl", "graph"):
        del config.seeds.beside[name]
    config.ddpm.update(timesteps=50, steps=5)
    config.pdiff.codec.sizes.decoder_channels = (2, 4, 4, 4)
    config.pdiff.velocity.sizes.channels = (4, 4, 4, 4)
    config.pdiff.ddpm.timesteps = 50
    for part in (config.ddpm, config.pdiff.codec, config.pdiff.ddpm):
        part.recipe.update(steps=10, batch=6, save_every=10, log_every=10)
    config.pca.components = config.rivals.components = 4
    config.sampling.update(samples=6, steps=3)
    config.rivals.update(strengths=(0.1, 0.5), tuned_on=4)
    config.trained_on.update(steps=(5, 10), networks=4, rates=(4e-3,), tuned_on=2)
    config.fresh.networks = 2
    config.evaluation.test_images.update(states=100, seeds=100)
    config.evaluation.update(choice_images=100, matching_images=20)
    config.evaluation.statistics_images = 100


def _cell(config: ConfigDict, encoder: str) -> None:
    """A cell of Table 1: its encoder's designs alone."""
    wanted = {"vae": "kl", "graph": "graph"}[encoder]
    for name in list(config.states.beside):
        if name != wanted:
            del config.states.beside[name]


def _paper(config: ConfigDict, encoder: str) -> None:
    """The published sizes: Table 6 and 7's encoders, Table 10's training, p-diff's `medium`."""
    large = recipe(30_000, 200, 1e-3, 2e-6)
    states = config.states
    states.codec.update(kl_weight=1e-2, reconstruction="sse")
    states.codec.recipe.update(large)
    states.flow.update(source="kaiming_normal")
    states.flow.recipe.update(large)
    paper_graph(states.codec.graph)
    sizes: dict[str, Any] = {"ch": 128, "ch_mult": (1, 1, 2, 2, 2), "num_res_blocks": 2}
    sizes |= {"z_channels": 4, "embed_dim": 4, "resolution": 64}
    unet: dict[str, Any] = {"model_channels": 128, "channel_mult": (1, 2, 2), "num_res_blocks": 2}
    unet |= {"num_heads": 4, "num_groups": 32}
    beside = states.beside
    if encoder == "vae":
        beside.kl.codec.sizes = ConfigDict(sizes)
        beside.kl.velocity.sizes.update(unet)
        beside.kl.codec.recipe.update(steps=30_000, batch=32)
        beside.kl.flow.recipe.update(steps=30_000, batch=32)
    else:
        beside.graph.codec.recipe.update(steps=30_000, batch=32, learning_rate=1e-3, warmup=0)
    config.ddpm.recipe.update(large)
    config.ddpm.steps = 1000
    config.pdiff.codec.sizes = ConfigDict(
        {"kernel": 5, "fold": 5, "encoder_channels": (4,) * 4, "decoder_channels": (4, 256, 256, 8)}
    )
    config.pdiff.velocity.sizes.channels = (64, 128, 256, 512)
    config.pdiff.codec.recipe.update(large)
    config.pdiff.ddpm.recipe.update(large, ema_decay=0.9999)
    config.sampling.samples = 200
    config.evaluation.test_images.states = 0
