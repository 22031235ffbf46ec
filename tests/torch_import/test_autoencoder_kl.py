"""Import of AutoencoderKL state dicts without the originals: round trips and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import import convert
from flown_jax.torch_import.autoencoder_kl import module_from_config
from tests.layers.helpers import random_variables

CONFIG = {
    "ch": 4,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
    "resolution": 8,
    "in_channels": 1,
    "out_ch": 1,
    "z_channels": 2,
    "embed_dim": 3,
    "num_groups": 2,
    "in_dim": 10,
    "fdim": 64,
}
PLAIN = {k: v for k, v in CONFIG.items() if k not in ("in_dim", "fdim")}


def torch_state(params, rename):
    """A state dict in PyTorch's layouts and names from linen parameters."""
    state = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *modules, kind = [p.key for p in path]
        leaf, name = np.asarray(leaf), rename(".".join(modules))
        if kind == "kernel":
            leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
            if leaf.ndim == 2 and name.rsplit(".", 1)[-1] in ("q", "k", "v", "proj_out", "qkv"):
                leaf = leaf[..., None] if ".attn" not in name else leaf[..., None, None]
        kind = "bias" if kind == "bias" else "weight"
        state[f"{name}.{kind}"] = leaf
    return state


def _rename(name):
    for part in ("block", "attn"):
        name = name.replace(f"_{part}_", f".{part}.") if "mid" not in name else name
    name = name.replace("down_", "down.").replace("up_", "up.")
    name = name.replace("_downsample", ".downsample").replace("_upsample", ".upsample")
    return {"fc_in": "encoder.fc_in", "fc_out": "decoder.fc_out"}.get(name, name)


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_converting_back_gives_the_same_parameters(config):
    module = module_from_config(config)
    w = jnp.zeros((1, 10) if "in_dim" in config else (1, 8, 8, 1))
    params = random_variables(module, w)["params"]
    state = torch_state(params, _rename) | {"loss.logvar": np.zeros(())}
    converted = convert("autoencoder_kl", state, config)
    jax.tree.map(np.testing.assert_array_equal, converted, {"params": params})


def test_wrong_entries_are_refused_by_name():
    module = module_from_config(CONFIG)
    params = random_variables(module, jnp.zeros((1, 10)))["params"]
    state = torch_state(params, _rename)
    missing = {k: v for k, v in state.items() if k != "encoder.mid.attn_1.q.weight"}
    with pytest.raises(UserError, match=r"no entry 'encoder\.mid\.attn_1\.q\.weight'"):
        convert("autoencoder_kl", missing, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: encoder\.other\.weight"):
        convert("autoencoder_kl", state | {"encoder.other.weight": np.zeros(2)}, CONFIG)
    with pytest.raises(UserError, match=r"'encoder\.fc_in\.weight' .* not \(64, 11\)"):
        convert("autoencoder_kl", state, CONFIG | {"in_dim": 11})


def test_configurations_without_a_posterior_or_a_size_are_refused():
    with pytest.raises(UserError, match="double_z"):
        module_from_config(CONFIG | {"double_z": False})
    with pytest.raises(UserError, match="no entry 'ch'"):
        module_from_config({k: v for k, v in CONFIG.items() if k != "ch"})
