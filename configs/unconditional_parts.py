"""Autoencoders, flows and rivals of configs/unconditional.py."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.fsl_parts import graph_sizes, recipe


def pdiff() -> ConfigDict:
    """p-diff's `small` autoencoder, and its denoiser at a quarter of the width."""
    config = ConfigDict()
    config.codec = ConfigDict(
        {
            "form": "pdiff",
            "sizes": {
                "kernel": 3,
                "fold": 3,
                "encoder_channels": (2, 2, 2, 2),
                "decoder_channels": (2, 64, 64, 8),
            },
            "sigma_in": 0.001,
            "sigma_lat": 0.5,
            "recipe": recipe(500, 16, 1e-3, 2e-6),
        }
    )
    config.velocity = ConfigDict({"kind": "pdiff", "sizes": {"channels": (16, 32, 64, 128)}})
    config.ddpm = ConfigDict(
        {"timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "steps": 0}  # 0: all
        | {"recipe": recipe(1000, 32, 1e-3, 2e-6, ema_decay=0.999)}
    )
    return config


def _group(codec: ConfigDict, flow: ConfigDict, beside: dict) -> ConfigDict:
    velocity = {"kind": "mlp", "sizes": {"hidden_dims": (256, 256, 256), "embedding_dim": 32}}
    return ConfigDict({"codec": codec, "velocity": velocity, "flow": flow, "beside": beside})


# AutoencoderKL and UNet as published but for their widths.
_KL: dict[str, Any] = {
    "codec": {
        "form": "autoencoder_kl",
        "sizes": {
            "ch": 8,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "z_channels": 4,
            "embed_dim": 4,
            "resolution": 16,
        },
        "recipe": {"steps": 500, "batch": 16},
    },
    "velocity": {
        "kind": "unet",
        "sizes": {
            "model_channels": 16,
            "channel_mult": (1, 2),
            "num_res_blocks": 1,
            "num_heads": 2,
            "num_groups": 8,
            "use_scale_shift_norm": True,
            "time_scale": 1000.0,
        },
    },
    "flow": {"recipe": {"steps": 1000, "batch": 32}},
}
GRAPH: dict[str, Any] = {
    "codec": {
        "encoder": "graph",
        "sizes": {"latent_shape": (8, 8, 4), "hidden_dim": 512},
        "sigma_lat": 0.1,  # more, and 200 networks are not told apart in so few steps
        "recipe": {"steps": 1200, "batch": 8, "learning_rate": 2e-3, "warmup": 30},
    }
}
# The printed recipe (Tables 6 and 10) in these widths, and what differs from it in one thing each.
_PRINTED: dict[str, Any] = {
    **_KL,
    "codec": {
        **_KL["codec"],
        "reconstruction": "sse",
        "kl_weight": 1e-2,
        "recipe": {"steps": 1500, "batch": 50, "clip": 0.0},
    },
    "flow": {
        "source": "kaiming_normal",
        "recipe": {"steps": 3000, "batch": 50, "weight_decay": 2e-6, "clip": 0.0},
    },
}
PUBLISHED: dict[str, Any] = {
    "published": _PRINTED,
    "published_mse": {
        **_PRINTED,
        "codec": {**_PRINTED["codec"], "reconstruction": "mse", "kl_weight": 3.5e-6},
    },
    "published_gaussian": {**_PRINTED, "flow": {**_PRINTED["flow"], "source": "gaussian"}},
}
_SPREAD: dict[str, Any] = {
    "weights_weight": 0.0,
    "task_weight": 0.6,
    "diversity_weight": 1.0,
    "diversity_target": 0.95,
    "diversity_form": "two_sided",
    "ball_weight": 6.0,
    "recipe": {"steps": 6000},
}
# The codes that the decoder was trained on: without their noise samples lie closer together.
_AS_TRAINED = {"concentration": 1.0, "noise": 0.5}


def of_states() -> ConfigDict:
    """Weights alone, as in the paper; the flow goes to the states themselves."""
    codec = _codec(recipe(1000, 32, 1e-3, 2e-6, clip=1.0))
    flow = _flow("members")
    flow.recipe.steps = 8000  # states lie along a curve, which fewer steps leave
    return _group(codec, flow, {"kl": _KL, "graph": GRAPH})


def of_seeds() -> ConfigDict:
    """With the task loss of decoded mixes, to which the flow goes."""
    codec = _codec(recipe(3000, 16, 1e-3, 2e-6, clip=1.0))
    codec.update(task_weight=0.2, diversity_weight=0.1)
    codec.sizes.hidden_dim = 512
    short = {"steps": 1500}
    slow = {"steps": 900, "batch": 16, "learning_rate": 1e-3, "warmup": 50}
    alone: dict[str, Any] = {
        "codec": {"task_weight": 0.0, "recipe": short},
        "flow": {"target": "members"},
    }
    beside: dict[str, Any] = {
        # The paper's objective, by each of its encoders.
        "weights": alone,
        "kl": {**_KL, "codec": {**_KL["codec"], "task_weight": 0.0}},
        "graph": {**GRAPH, "codec": {**GRAPH["codec"], "task_weight": 0.0, "recipe": slow}},
        # The task loss alone: one network printed many times.
        "task": {
            "codec": {"weights_weight": 0.0, "diversity_weight": 0.0, "recipe": {"steps": 500}}
        },
    }
    # No reconstruction; decoded mixes apart from each other and in the zoo's ball. Its controls:
    # networks whose weights are shuffled, and no zoo at all.
    beside |= {
        "spread": {"codec": _SPREAD, "flow": _AS_TRAINED},
        "spread_shuffled": {"codec": {**_SPREAD, "codes": "shuffled"}, "flow": _AS_TRAINED},
        "spread_no_zoo": {"codec": {**_SPREAD, "codes": "normal"}, "flow": {"target": "members"}},
    }
    beside["kl"]["flow"] = {**_KL["flow"], **alone["flow"]}
    beside["graph"]["flow"] = alone["flow"]
    return _group(codec, _flow("mixes"), beside)


def _codec(how: ConfigDict) -> ConfigDict:
    return ConfigDict(
        {
            "form": "mlp",  # mlp or autoencoder_kl
            "sizes": {"latent_shape": (4, 4, 4), "hidden_dim": 256},
            "encoder": "vae",  # the form's own, or graph
            "chunk": 0,  # weights of a chunk (paper, A.2.1); 0: whole vectors
            "graph": graph_sizes(),
            "reconstruction": "mse",
            "weights_weight": 1.0,
            "kl_weight": 3.5e-6,
            "sigma_in": 0.001,  # paper, A.3.2
            "sigma_lat": 0.5,  # paper, A.3.2
            "task_weight": 0.0,  # of decoded mixes on training images; the paper has none
            "task_balance": 0.0,
            "images": 24,  # of a step
            "mixes": 8,  # decoded networks of a step
            "members": 2,  # of a mix
            "concentration": 1.0,
            "anchor": 0.0,
            "diversity_weight": 0.0,
            "diversity_target": 0.7,
            "diversity_form": "one_sided",  # or two_sided
            "ball_weight": 0.0,  # of what is longer than networks of the zoo
            "codes": "members",  # controls: shuffled members, or normal for no zoo at all
            "recipe": how,
        }
    )


def _flow(target: str) -> ConfigDict:
    return ConfigDict(
        {
            "target": target,
            "members": 2,
            "concentration": 8.0,  # keeps samples away from the members
            "noise": 0.0,
            "source": "gaussian",
            "coupling": "independent",
            "sigma": 0.0,
            "condition_noise": 0.0,
            "recipe": recipe(3000, 64, 1e-3, 0.0, clip=1.0, ema_decay=0.999),
        }
    )
