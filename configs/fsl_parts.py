"""Parts that several variants of configs/fsl.py use."""

from __future__ import annotations

from ml_collections import ConfigDict


def recipe(
    steps: int, batch: int, learning_rate: float, weight_decay: float, **more: object
) -> ConfigDict:
    """A recipe of training, as `training.recipe.Recipe` takes it; a zero means none."""
    values = ConfigDict(
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
    values.update(more)
    return values


def graph_sizes() -> ConfigDict:
    """An encoder of graphs at two cores' size, as `GraphAutoencoder` takes it."""
    return ConfigDict(
        {
            "backbone": "transformer",  # transformer or pna
            "form": "sparse",  # sparse: edges that exist; dense: all pairs
            "node_dim": 32,
            "edge_dim": 8,
            "attention_dim": 16,
            "num_heads": 4,
            "num_layers": 3,
            "node_hidden": 64,
            "edge_hidden": 16,
            "frequencies": 64,  # of random Fourier features
            "sigma": 1.0,  # of their frequencies
            "edge_levels": True,  # edges know their layer
            "pooling": "layers",  # outputs; layers: and the mean and deviation of each hidden layer
            "reference": True,  # what is pooled is the difference to one fixed network
            "head_dims": (128, 128),
            "head_activation": "silu",
            "skip": True,  # a linear layer beside the head
            "softmax_scale": "head",  # of attention: head or width
            "flattening": "as_conv",  # of a linear layer behind convolutions: or repeat_nodes
            "order": "corrected",  # of repeated nodes: or published, which is not invariant
            "chunk": 1,  # networks at a time: one is fastest on processors, many on accelerators
        }
    )


def paper_graph(graph: ConfigDict) -> None:
    """The paper's sizes (Table 7), and the published code's where it prints none."""
    graph.update(edge_levels=False, pooling="outputs", reference=False, skip=False)
    graph.update(head_activation="relu", chunk=8)
    graph.update(form="dense", softmax_scale="width", flattening="repeat_nodes")
    graph.update(node_dim=64, edge_dim=32, attention_dim=128, num_heads=8, num_layers=4)
    graph.update(node_hidden=128, edge_hidden=64, frequencies=128, head_dims=(128, 128))


def flat_unet(config: ConfigDict) -> None:
    """The paper's shape at two cores' size: one flat latent 8x8x4 of the whole head, a UNet.

    Args:
      config: with `codec` and `velocity`, which are changed.
    """
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
