"""What weight autoencoders keep of the networks of one zoo.

    python -m experiments.reconstruct --config.zoo=FOLDER                          # minutes
    python -m experiments.reconstruct --config=configs/reconstruct.py:seeds
    python -m experiments.reconstruct --config=configs/reconstruct.py:tiny --config.zoo=FOLDER

`trajectory` is for the states of one network: those of CNN-medium on CIFAR-10, which
`python -m experiments.train_trajectory --config=configs/trajectory.py:cnn_medium_cifar10` makes.
`seeds` is for networks of many seeds, here the small zoo of MNIST: --config.zoo=zoos/cifar10_short
takes CIFAR-10's. `tiny` does every stage, and its figures mean nothing. The zoo may be any of whole
networks; its test images must be at hand (`experiments.prepare_data`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_parts import graph_sizes, recipe


def get_config(variant: str = "trajectory") -> ConfigDict:
    """The configuration of a variant: `trajectory`, `seeds` or `tiny`."""
    variants = {"trajectory": lambda config: None, "seeds": _seeds, "tiny": _tiny}
    if variant not in variants:
        raise ValueError(
            f"configs/reconstruct.py has no variant {variant!r}; it has {', '.join(variants)}."
        )
    config = _trajectory()
    config.variant = variant
    variants[variant](config)
    return config.lock()


def _trajectory() -> ConfigDict:
    config = ConfigDict()
    config.variant = "trajectory"
    config.seed = 0
    config.tensorboard = False
    config.zoo = "workdirs/trajectory-cnn_medium_cifar10/zoo"
    config.data = ConfigDict({"dir": "data"})  # of the prepared image sets
    # Of a trajectory every such state is held out; of seeds, those that the zoo holds out.
    config.held_out_every = 10
    config.methods = ("vae_mlp", "graph", "graph_pna", "pca", "shuffled")
    config.codec = ConfigDict(
        {
            "form": "mlp",  # of the decoders, and of the encoder that is compared with: mlp
            "sizes": {"latent_shape": (8, 8, 4), "hidden_dim": 512},
            "graph": graph_sizes(),
            "reconstruction": "mse",  # of the posterior's mean: there is no noise and no prior
            "recipe": recipe(400, 8, 2e-3, 0.0, clip=1.0, warmup=30, optimizer="adam"),
        }
    )
    del config.codec.graph["backbone"]  # the methods have one each
    config.evaluation = ConfigDict(
        {
            "networks": 20,  # of a kind, evenly spaced, that are run on images; 0: all
            "test_images": 1000,  # the first so many; 0: all
        }
    )
    return config


def _seeds(config: ConfigDict) -> None:
    config.zoo = "zoos/mnist_short"
    config.codec.recipe.update(steps=400, batch=16, learning_rate=1e-3, warmup=50)
    config.evaluation.update(networks=0, test_images=1000)


def _tiny(config: ConfigDict) -> None:
    """Every stage, as small as it goes."""
    _seeds(config)
    config.codec.sizes = ConfigDict({"latent_shape": (2, 2, 1), "hidden_dim": 16})
    config.codec.graph.update(node_dim=8, edge_dim=4, attention_dim=4, num_heads=2, num_layers=1)
    config.codec.graph.update(node_hidden=8, edge_hidden=4, frequencies=4, head_dims=(8,))
    config.codec.recipe.update(steps=4, batch=4, warmup=1)
    config.evaluation.update(networks=4, test_images=50)
