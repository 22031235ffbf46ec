"""Whole networks for a data set that is shown, and starts for fine-tuning (paper section 3.1).

    python -m experiments.retrieval --config=configs/retrieval.py

`default` trains small zoos of embedded image sets first; `tiny` does every stage, and its figures
mean nothing; `real` has zoos of MNIST, Fashion-MNIST, CIFAR-10 and STL-10, `init` the same from
earlier epochs; `published` has the paper's recipe on the zoos of `real`, narrower and shorter, for
two cores; `paper` has its own sizes, for a GPU. Choose with configs/retrieval.py:NAME.

A zoo of your own: --config.zoos.NAME=FOLDER, for an image set NAME that was prepared.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl import get_config as few_shot
from configs.fsl_parts import graph_sizes, recipe
from configs.retrieval_paper import paper, published

_REAL = ("mnist", "fashion_mnist", "cifar10", "stl10")


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant: `default`, `tiny`, `real`, `init` or `paper`."""
    variants = {
        "default": _embedded,
        "tiny": _tiny,
        "real": _real,
        "init": _init,
        "published": _published,
        "paper": _paper,
    }
    if variant not in variants:
        raise ValueError(
            f"configs/retrieval.py has no variant {variant!r}; it has {', '.join(variants)}."
        )
    config = _default()
    config.variant = variant
    variants[variant](config)
    return config.lock()


def _default() -> ConfigDict:
    config = ConfigDict()
    config.variant = "default"
    config.seed = 0
    config.share = True  # what does not depend on the seed lies beside the workdirs
    config.tensorboard = False
    config.data = ConfigDict(
        {
            "dir": "data",  # of the prepared image sets
            # Of the training images, where a zoo does not say it; the zoo's networks saw the rest.
            "validation_share": 1 / 6,
            "split_seed": 42,
        }
    )
    # The data sets of the meta-model and the folders of their zoos; "": trained here, by the
    # variant of configs/zoo.py that has the set's name.
    config.zoos = ConfigDict({"latin": "", "colour_symbols": "", "digits": ""})
    config.trained = ConfigDict({"count": 40, "held_out": 0.25, "epochs": 8, "save_epochs": (4, 8)})
    config.epochs = (8,)  # of the networks to learn from; (): the last that a zoo has
    config.networks = 0  # training networks of a zoo; 0: all
    config.alignment = ConfigDict(
        {
            "encode": True,  # aligned networks, or the zoos as they are
            "rounds": 2,
            "leader": "latin",  # the set whose networks the others are brought in order with
            "images": 200,  # on which units are compared
        }
    )
    config.features = _features()
    config.condition = ConfigDict(
        {
            "entries": ("features", "caml"),
            "shot": 5,  # support images a class
            "draws": 300,  # of training images, that the generators learn from
            "pool": 100,  # images of a class that are drawn from
            "slot_tasks": 200,
        }
    )
    config.velocity = ConfigDict(
        {"kind": "mlp", "sizes": {"hidden_dims": (256, 256, 256), "embedding_dim": 32}}
    )
    # `flown` is the main design; of the others only what is named differs from it.
    config.codec = _codec()
    config.flow = _flow()
    config.beside = ConfigDict(
        {
            # The paper's objective: weights alone, and the flow goes to the networks themselves.
            "weights": {"codec": {"task_weight": 0.0}, "flow": {"target": "members"}},
            # The task loss alone.
            "task": {
                "codec": {
                    "weights_weight": 0.0,
                    "diversity_weight": 0.0,
                    "recipe": {"steps": 1000},
                }
            },
            # Zoos that are not aligned.
            "raw": {"alignment": {"encode": False}, "codec": {"recipe": {"steps": 2000}}},
        }
    )
    config.ddpm = ConfigDict(
        {"timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "steps": 100}
        | {"recipe": recipe(4000, 64, 1e-3, 0.0, clip=1.0, ema_decay=0.999)}
    )
    # Where the flow of A.4.2 starts: networks of another data set, on weights alone as in
    # beside.weights.
    config.prior = ConfigDict(
        {
            "dataset": "greek",
            "networks": 4,
            "epochs": 10,
            "learning_rate": 1e-3,
            "batch": 10,
            "noise": 1.0,  # paper: N(0, I)
            "weight": 1.0,  # of the prior's reconstruction, in the mended autoencoder
            "recipe": recipe(3000, 64, 1e-3, 0.0, clip=1.0),
        }
    )
    config.rivals = ConfigDict(
        {
            "steps": 1000,  # of training an average of two networks, and Kaiming's start
            "batch": 10,
            "learning_rates": (1e-3, 3e-3),  # chosen on validation images
            "tuned_on": 6,  # networks
            "kde_bandwidth": "silverman",
        }
    )
    config.sampling = ConfigDict({"samples": 50, "solver": "euler", "steps": 30})
    config.evaluation = ConfigDict(
        {
            "matching_images": 60,  # on which units are matched for distances
            "yard_networks": 40,  # whose distances are the unit of diversity
            "draws": 100,  # support draws of the confusion table
            "test_images": 0,  # 0: all
        }
    )
    config.initialise = ConfigDict(
        {
            "unseen": {"greek": "latin"},  # set: the set whose network and recipe it takes
            "margins": {},  # set: pixels of black around its images, before they are resized
            "images": 2000,  # of an epoch; 0: all
            "epochs": (0, 1, 5, 25),
            "runs": 3,
            "rates": (1.0, 3.0, 10.0),  # times the zoo's own learning rate
            "tuned_at": 1,  # epoch whose validation accuracy chooses the rate
        }
    )
    return config


def _codec() -> ConfigDict:
    return ConfigDict(
        {
            "form": "mlp",  # mlp or autoencoder_kl
            "sizes": {"latent_shape": (4, 4, 4), "hidden_dim": 512},
            "encoder": "vae",  # the form's own, or graph
            "graph": graph_sizes(),
            "reconstruction": "mse",
            "weights_weight": 1.0,
            "kl_weight": 3.5e-6,  # the paper's 0.01 of a sum over 2,864 weights
            "sigma_in": 0.001,  # paper, A.3.2
            "sigma_lat": 0.5,  # paper, A.3.2
            "task_weight": 0.2,  # of decoded mixes on training images; the paper has none
            "task_balance": 0.0,  # of the sets: each one's loss over the originals' to this power
            "networks": 16,  # of a data set and step
            "images": 24,  # of a data set and step
            "mixes": 8,  # decoded networks of a data set and step
            "members": 2,  # of a mix
            "concentration": 1.0,  # of the shares of a mix
            "anchor": 0.0,
            "diversity_weight": 0.1,
            "diversity_target": 0.7,
            "diversity_form": "one_sided",  # or two_sided
            "ball_weight": 0.0,  # of what is longer than networks of the zoo
            "codes": "members",  # controls: shuffled members, or normal for no zoo at all
            "recipe": recipe(3000, 48, 1e-3, 2e-6, clip=1.0),
        }
    )


def _flow() -> ConfigDict:
    return ConfigDict(
        {
            "target": "mixes",  # mixes or members
            "members": 2,
            "concentration": 8.0,  # keeps samples away from the members
            "noise": 0.0,
            "source": "gaussian",
            "coupling": "independent",
            "sigma": 0.0,
            "condition_noise": 0.1,
            "recipe": recipe(4000, 64, 1e-3, 0.0, clip=1.0, ema_decay=0.999),
        }
    )


def _features() -> ConfigDict:
    """The frozen image encoder and CAML, trained on glyphs by the few-shot experiment's stages."""
    config = few_shot().copy_and_resolve_references()
    config.unlock()
    config.tasks.update(settings=("10-way 5-shot",), way=10, shots=(5,), query=5, train_query=2)
    config.tasks.update(train=4000, validation=40, test=10)
    config.encoder.update(kind="trained", side=28)
    config.caml.recipe.update(steps=300, batch=16, warmup=30, validate_every=100, save_every=100)
    config.targets = ConfigDict({"shots": 1})
    for name in ("codec", "flow", "ddpm", "regression", "beside", "probe", "ridge"):
        del config[name]
    for name in ("logistic", "velocity", "sampling", "condition", "variant", "tensorboard"):
        del config[name]
    return config


def _embedded(config: ConfigDict) -> None:
    """Small zoos and short trainings, from nothing; much of the time is compilation."""
    config.trained.update(count=32, epochs=6, save_epochs=(3, 6))
    config.epochs = (6,)
    config.features.data.update(train_classes=200, validation_classes=60, images_per_class=20)
    config.features.tasks.update(train=600, validation=20)
    config.features.backbone.channels = (8, 8, 16, 32)
    config.features.backbone.recipe.update(steps=200, batch=64, warmup=0)
    config.features.tasks.train_query = 5
    config.features.caml.update(num_layers=1, mlp_dim=64)  # more layers stay at chance for longer
    config.features.caml.recipe.update(steps=500, batch=8, learning_rate=5e-3, validate_every=250)
    config.condition.update(draws=200, slot_tasks=50)
    config.codec.sizes.hidden_dim = 256
    config.codec.recipe.steps = 800
    config.flow.recipe.steps = config.ddpm.recipe.steps = 3000
    config.beside.task.codec.recipe.steps = 300
    config.beside.raw.codec.recipe.steps = 500
    config.prior.update(networks=2, epochs=2)
    config.prior.recipe.steps = 500
    config.rivals.update(steps=300, tuned_on=4)
    config.sampling.samples = 24
    config.evaluation.update(yard_networks=20, draws=50, matching_images=40)
    config.initialise.update(images=1000, epochs=(0, 1, 3))


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes."""
    config.zoos = ConfigDict({"latin": "", "colour_symbols": ""})
    config.trained.update(count=8, epochs=1, save_epochs=(1,))
    config.epochs = (1,)
    config.features.data.update(train_classes=40, validation_classes=20, images_per_class=12)
    config.features.data.alike = 0.6
    config.features.tasks.update(train=60, validation=10)
    config.features.backbone.channels = (4, 4, 8, 8)
    config.features.backbone.recipe.update(steps=10, batch=16, warmup=0)
    config.features.caml.update(num_layers=1, label_dim=16, mlp_dim=32)
    config.features.caml.recipe.update(steps=4, batch=4, warmup=0, validate_every=2)
    config.condition.update(draws=8, pool=20, slot_tasks=8)
    config.codec.update(networks=6, images=8, mixes=3, task_balance=0.5)
    config.codec.sizes.hidden_dim = 32
    config.velocity.sizes.hidden_dims = (32, 32)
    for part in (config.codec, config.flow, config.ddpm):
        part.recipe.update(steps=20, save_every=10, log_every=10)
    config.beside.task.codec.recipe.steps = config.beside.raw.codec.recipe.steps = 20
    config.ddpm.update(timesteps=50, steps=5)
    config.prior.update(networks=2, epochs=1)
    config.prior.recipe.update(steps=20, save_every=10, log_every=10)
    config.rivals.update(steps=10, tuned_on=2)
    config.sampling.update(samples=6, steps=3)
    config.evaluation.update(matching_images=20, yard_networks=6, draws=6, test_images=100)
    config.initialise.update(images=100, epochs=(0, 1), runs=2, rates=(1.0, 3.0))


def _real(config: ConfigDict) -> None:
    """Four data sets, a hundred networks each, at two cores' size."""
    config.zoos = ConfigDict({name: f"zoos/{name}_short" for name in _REAL})
    config.epochs = ()
    config.alignment.leader = "mnist"
    # With fewer images to draw supports from, and narrower, the flow fails on some unseen ones.
    config.condition.update(draws=1000, pool=500)
    config.velocity.sizes.update(hidden_dims=(512, 512, 512), embedding_dim=128)
    config.codec.recipe.steps = 6000
    # The plain mean of the sets' cross-entropies hardly sees MNIST's, a sixteenth of CIFAR-10's.
    config.codec.update(task_balance=0.25, task_weight=0.225)
    config.flow.recipe.steps = config.ddpm.recipe.steps = 8000
    config.beside.task.codec.recipe.steps = 1500
    config.beside.raw.codec.recipe.steps = 3000
    config.beside.weights.flow.recipe = ConfigDict({"steps": 30_000})
    config.prior.dataset = "mini_imagenet"
    config.initialise.unseen = ConfigDict(
        {"usps": "mnist", "kmnist": "mnist", "svhn_cropped": "fashion_mnist"}
    )
    # USPS fills its 16 x 16 pixels; MNIST's digits have 20 of 28.
    config.initialise.margins = ConfigDict({"usps": 3})
    config.initialise.update(images=3000)


def _init(config: ConfigDict) -> None:
    """From networks in the middle of their training, as the paper's Table 3."""
    _real(config)
    config.epochs = (3, 4, 25)  # half of each zoo's training


def _published(config: ConfigDict) -> None:
    _real(config)
    published(config)


def _paper(config: ConfigDict) -> None:
    _real(config)
    paper(config, _REAL)
