"""Import of UNet state dicts without the originals: round trips, configurations, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import import conditioned_unet, convert, unet
from tests.layers.helpers import random_variables

CONFIG = {
    "dim": [2, 4, 4],
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "attention_resolutions": "2",
}
ADM = {
    "in_channels": 2,
    "out_channels": 1,
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 1],
    "attention_resolutions": [1],
    "num_heads": 2,
}
VARIANTS = {
    "plain": {},
    "classes": {"class_cond": True, "num_classes": 3},
    "scale-shift and resampling blocks": {"use_scale_shift_norm": True, "resblock_updown": True},
}
_BLOCK = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "emb": "emb_layers.1",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip": "skip_connection",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_converting_back_gives_the_same_parameters(name):
    config = CONFIG | VARIANTS[name]
    module = unet.module_from_config(config)
    condition = {"label": jnp.zeros(1, int)} if "class_cond" in config else None
    params = random_variables(module, jnp.zeros((1, 4, 4, 2)), 0.0, condition)["params"]
    converted = convert("unet", torch_state(params), config)
    jax.tree.map(np.testing.assert_array_equal, converted, {"params": params})


def test_conditioned_unet_round_trip():
    condition = {"num_classes": 3, "num_samples": 2, "out_dim": 2, "embed_dim": 5}
    config = {"unet": ADM, "cond": condition | {"in_ch": 1, "input_size": 4}}
    module = conditioned_unet.module_from_config(config)
    x, features = jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 3, 2, 5))
    params = random_variables(module, x, 0.0, features)["params"]
    state = {f"diffusion_model.{k}": v for k, v in torch_state(params["unet"]).items()}
    encoder = params["dataset_condition"]
    state |= {
        "cond_stage_model.dense1.weight": encoder["across_kernel"].T,
        "cond_stage_model.dense1.bias": encoder["across_bias"],
        "cond_stage_model.dense2.weight": encoder["to_map"]["kernel"].T,
        "cond_stage_model.dense2.bias": encoder["to_map"]["bias"],
    }
    converted = convert("conditioned_unet", state, config)
    jax.tree.map(np.testing.assert_array_equal, converted, {"params": params})


def test_wrong_entries_are_refused_by_name():
    module = unet.module_from_config(CONFIG)
    params = random_variables(module, jnp.zeros((1, 4, 4, 2)), 0.0)["params"]
    state = torch_state(params)
    missing = {k: v for k, v in state.items() if k != "out.2.bias"}
    with pytest.raises(UserError, match=r"no entry 'out\.2\.bias'"):
        convert("unet", missing, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: label_emb\.weight"):
        convert("unet", state | {"label_emb.weight": np.zeros((3, 128))}, CONFIG)
    with pytest.raises(UserError, match=r"'input_blocks\.0\.0\.weight' .* not \(32, 3, 3, 3\)"):
        convert("unet", state, CONFIG | {"dim": [3, 4, 4]})


def test_configurations_of_both_kinds():
    module = unet.module_from_config({"dim": [3, 32, 32], "num_channels": 64, "num_res_blocks": 2})
    assert module.channel_mult == (1, 2, 2, 2)
    assert module.attention_resolutions == (2,)  # torchcfm's "16" is a side, this a factor
    assert unet.module_from_config(ADM).attention_resolutions == (1,)
    learned = unet.module_from_config(CONFIG | {"learn_sigma": True, "num_head_channels": 16})
    assert (learned.out_channels, learned.num_head_channels) == (4, 16)
    with pytest.raises(UserError, match="needs channel_mult for side 20"):
        unet.module_from_config({"dim": [3, 20, 20], "num_channels": 32, "num_res_blocks": 1})


def test_paper_sized_network_has_the_known_number_of_parameters():
    config = CONFIG | {"dim": [4, 4, 4], "num_channels": 128, "num_res_blocks": 2}
    module = unet.module_from_config(config)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4, 4, 4)), 0.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 15_933_188


def torch_state(params):
    """A state dict in PyTorch's layouts and names from linen parameters."""
    state = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *modules, kind = [p.key for p in path]
        leaf, name = np.asarray(leaf), _rename(modules)
        if kind == "kernel":
            leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
            if modules[-1] in ("qkv", "proj_out"):
                leaf = leaf[..., None]
        state[f"{name}.{'bias' if kind == 'bias' else 'weight'}"] = leaf
    return state


def _rename(modules):
    first, *rest = modules
    fixed = {"out_norm": "out.0", "out_conv": "out.2"}
    if first == "time_embed":
        return f"time_embed.{0 if rest[0] == 'in' else 2}"
    if first == "label_emb" or first in fixed:
        return fixed.get(first, first)
    kind, numbers = first.split("_block")
    blocks = "_blocks" if numbers.startswith("s") else "_block"
    name = kind + blocks + numbers.removeprefix("s").replace("_", ".")
    if rest == ["conv"]:
        return f"{name}.{'op' if kind == 'input' else 'conv'}"
    return ".".join([name, *(_BLOCK.get(r, r) for r in rest)])
