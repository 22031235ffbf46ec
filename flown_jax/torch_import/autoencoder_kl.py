"""AutoencoderKL: D2NWG's weight autoencoder and latent diffusion's image one (same names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.errors import UserError
from flown_jax.torch_import.common import StateReader, setting


def module_from_config(config: Mapping[str, Any], **options: Any) -> AutoencoderKL:
    """The module of a configuration with the original names.

    Args:
      config: `ch`, `ch_mult`, `num_res_blocks`, `attn_resolutions`, `resolution`, `in_channels`,
        `out_ch`, `z_channels`, `embed_dim`; with `in_dim` (and `my_channels`, `fdim`) it has
        D2NWG's linear adapters. Without `num_groups`: 2 with adapters, 32 without, as published.
      options: further fields of the module (`form`, `dtype`).
    Raises:
      UserError: a missing entry, or `double_z` false, which has no posterior.
    """
    if not config.get("double_z", True):
        raise UserError("AutoencoderKL needs double_z true: its encoder gives mean and variance.")
    linear = "in_dim" in config
    in_channels = int(setting(config, "in_channels"))
    return AutoencoderKL(
        ch=int(setting(config, "ch")),
        ch_mult=tuple(int(m) for m in setting(config, "ch_mult")),
        num_res_blocks=int(setting(config, "num_res_blocks")),
        z_channels=int(setting(config, "z_channels")),
        embed_dim=int(setting(config, "embed_dim")),
        in_dim=int(config["in_dim"]) if linear else None,
        rows=int(config.get("my_channels", 1)),
        resolution=int(setting(config, "resolution")),
        fdim=int(setting(config, "fdim")) if linear else None,
        in_channels=in_channels,
        out_channels=int(config.get("out_ch", in_channels)),
        attn_resolutions=tuple(int(r) for r in config.get("attn_resolutions", ())),
        num_groups=int(config.get("num_groups", 2 if linear else 32)),
        eps=float(config.get("groupnorm_eps", 1e-6)),
        adapter="linear" if linear else "none",
        **options,
    )


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `module_from_config(config)` that compute what the PyTorch module computes.

    Entries of the training loss (`loss.*`) are left aside.

    Args:
      state_dict: PyTorch names to arrays. config: see `module_from_config`.
    Returns:
      {"params": ...}.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module = module_from_config(config)
    reader = StateReader(state_dict, ignore=("loss.",))
    top = module.ch * module.ch_mult[-1]
    params: dict[str, Any] = {
        "encoder": _encoder(reader, module, top),
        "decoder": _decoder(reader, module, top),
        "quant_conv": reader.conv2d("quant_conv", 2 * module.z_channels, 2 * module.embed_dim, 1),
        "post_quant_conv": reader.conv2d("post_quant_conv", module.embed_dim, module.z_channels, 1),
    }
    if module.adapter == "linear":
        in_dim, fdim = int(config["in_dim"]), int(config["fdim"])
        params["fc_in"] = reader.linear("encoder.fc_in", in_dim, fdim)
        params["fc_out"] = reader.linear("decoder.fc_out", fdim, in_dim)
    reader.finish()
    return {"params": params}


def _encoder(reader: StateReader, module: AutoencoderKL, top: int) -> dict[str, Any]:
    params = {"conv_in": reader.conv2d("encoder.conv_in", module.in_channels, module.ch)}
    width, side, last = module.ch, module.side, len(module.ch_mult) - 1
    for level, mult in enumerate(module.ch_mult):
        at, name = f"encoder.down.{level}", f"down_{level}"
        for j in range(module.num_res_blocks):
            params[f"{name}_block_{j}"] = residual_block(
                reader, f"{at}.block.{j}", width, module.ch * mult
            )
            width = module.ch * mult
            if side in module.attn_resolutions:
                params[f"{name}_attn_{j}"] = attention(reader, f"{at}.attn.{j}", width)
        if level < last:
            params[f"{name}_downsample"] = {
                "conv": reader.conv2d(f"{at}.downsample.conv", width, width)
            }
            side //= 2
    params["mid"] = _middle(reader, "encoder.mid", top)
    params["norm_out"] = reader.norm("encoder.norm_out", top)
    params["conv_out"] = reader.conv2d("encoder.conv_out", top, 2 * module.z_channels)
    return params


def _decoder(reader: StateReader, module: AutoencoderKL, top: int) -> dict[str, Any]:
    params = {"conv_in": reader.conv2d("decoder.conv_in", module.z_channels, top)}
    params["mid"] = _middle(reader, "decoder.mid", top)
    width, side = top, module.latent_shape[0]
    for level in reversed(range(len(module.ch_mult))):
        at, name = f"decoder.up.{level}", f"up_{level}"
        for j in range(module.num_res_blocks + 1):
            target = module.ch * module.ch_mult[level]
            params[f"{name}_block_{j}"] = residual_block(reader, f"{at}.block.{j}", width, target)
            width = target
            if side in module.attn_resolutions:
                params[f"{name}_attn_{j}"] = attention(reader, f"{at}.attn.{j}", width)
        if level > 0:
            params[f"{name}_upsample"] = {
                "conv": reader.conv2d(f"{at}.upsample.conv", width, width)
            }
            side *= 2
    params["norm_out"] = reader.norm("decoder.norm_out", width)
    params["conv_out"] = reader.conv2d(
        "decoder.conv_out", width, module.out_channels or module.in_channels
    )
    return params


def _middle(reader: StateReader, name: str, width: int) -> dict[str, Any]:
    return {
        "block_1": residual_block(reader, f"{name}.block_1", width, width),
        "attn_1": attention(reader, f"{name}.attn_1", width),
        "block_2": residual_block(reader, f"{name}.block_2", width, width),
    }


def residual_block(reader: StateReader, name: str, inputs: int, outputs: int) -> dict[str, Any]:
    """`ResidualBlock` parameters from the entries below `name`."""
    params = {
        "norm1": reader.norm(f"{name}.norm1", inputs),
        "conv1": reader.conv2d(f"{name}.conv1", inputs, outputs),
        "norm2": reader.norm(f"{name}.norm2", outputs),
        "conv2": reader.conv2d(f"{name}.conv2", outputs, outputs),
    }
    if inputs != outputs:
        params["nin_shortcut"] = reader.conv2d(f"{name}.nin_shortcut", inputs, outputs, 1)
    return params


def attention(reader: StateReader, name: str, width: int) -> dict[str, Any]:
    """`SingleHeadAttention` parameters from the entries below `name`."""
    layers = ("q", "k", "v", "proj_out")
    params = {layer: reader.pointwise(f"{name}.{layer}", width, width, 2) for layer in layers}
    return {"norm": reader.norm(f"{name}.norm", width), **params}
