"""Accuracies of networks, read from their weights.

    python -m experiments.predict_accuracy                                       # minutes
    python -m experiments.predict_accuracy --config.zoo=zoos/mnist_short
    python -m experiments.predict_accuracy --config=configs/predict_accuracy.py:tiny

`tiny` does every stage; its figures mean nothing. The zoo is any of whole CNNs of many seeds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.fsl_parts import recipe


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration of a variant: `default` or `tiny`."""
    if variant not in ("default", "tiny"):
        raise ValueError(
            f"configs/predict_accuracy.py has no variant {variant!r}; it has default, tiny."
        )
    config = _default()
    config.variant = variant
    if variant == "tiny":
        _tiny(config)
    return config.lock()


def _default() -> ConfigDict:
    config = ConfigDict()
    config.variant = "default"
    config.seed = 0
    config.tensorboard = False
    config.zoo = "zoos/cifar10_short"
    config.epochs = ()  # of the networks; (): all that the zoo has
    config.label = "test_accuracy"  # what is predicted; or validation_accuracy
    # Of the training networks, the last seeds, by which penalty and steps are chosen. The zoo's
    # held-out networks are the test.
    config.validation_share = 0.2
    config.runs = 3  # of every reader that is trained, each from a seed of its own
    config.statistics = ConfigDict({"penalties": (1.0, 10.0, 100.0, 1000.0)})
    config.mlp = ConfigDict(
        {
            "sizes": {"hidden": (256,)},
            "recipe": recipe(300, 32, 1e-3, 1.0, clip=1.0, warmup=20, validate_every=10),
        }
    )
    config.encoder = ConfigDict(
        {
            "backbones": ("transformer", "pna"),
            "graph": {
                "form": "sparse",  # sparse, dense
                "node_dim": 32,
                "edge_dim": 8,
                "attention_dim": 16,
                "num_heads": 4,
                "num_layers": 2,
                "node_hidden": 64,
                "edge_hidden": 16,
                "frequencies": 64,
                "sigma": 0.2,  # 1 tells networks of few seeds by heart
                "pooling": "mean",  # outputs, mean_outputs, mean
                "head_dims": (32,),
                "softmax_scale": "head",  # head, width
                "flattening": "as_conv",  # as_conv, repeat_nodes
                "chunk": 1,
            },
            "recipe": recipe(120, 16, 3e-3, 1e-2, clip=1.0, warmup=10, validate_every=10),
        }
    )
    return config


def _tiny(config: ConfigDict) -> None:
    config.runs = 1
    config.mlp.recipe.update(steps=6, batch=8, warmup=2, validate_every=3)
    config.encoder.graph.update(
        node_dim=8,
        edge_dim=4,
        attention_dim=4,
        num_heads=2,
        num_layers=1,
        node_hidden=8,
        edge_hidden=4,
        frequencies=4,
        head_dims=(8,),
    )
    config.encoder.recipe.update(steps=4, batch=8, warmup=1, validate_every=2)
