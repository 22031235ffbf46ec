"""UNet of torchcfm, ADM and D2NWG (one network, same parameter names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.errors import UserError
from flown_jax.torch_import.common import StateReader, setting
from flown_jax.velocity.unet import UNet

# torchcfm's widths where a configuration gives none, by the side of the image.
_DEFAULT_MULT: dict[int, tuple[float, ...]] = {
    28: (1, 2, 2),
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
_FLAGS = ("use_scale_shift_norm", "resblock_updown", "use_new_attention_order")


def module_from_config(config: Mapping[str, Any], **options: Any) -> UNet:
    """The module of a configuration with torchcfm's names, or with ADM's and LDM's.

    Args:
      config: torchcfm's wrapper has `dim` (C, H, W), `num_channels`, `num_res_blocks`, and
        optionally `channel_mult`, `attention_resolutions` (a comma string of sides, "16"),
        `learn_sigma`, `class_cond`, `num_classes` (1000). ADM and LDM have `model_channels`,
        `in_channels`, `out_channels`, `channel_mult`, `attention_resolutions` (factors) and
        `num_classes`. Both: `num_heads` (1), `num_head_channels` (-1), `num_heads_upsample` (-1)
        and the flags `use_scale_shift_norm, resblock_updown, use_new_attention_order` (false).
      options: further fields of the module (`form`, `dtype`, `time_scale`).
    Raises:
      UserError: a missing entry, or widths that are neither given nor known for the side.
    """
    common: dict[str, Any] = {name: bool(config.get(name, False)) for name in _FLAGS}
    common |= {
        "num_res_blocks": int(setting(config, "num_res_blocks")),
        "num_heads": max(int(config.get("num_heads", 1)), 1),
        "num_head_channels": _positive(config.get("num_head_channels")),
        "num_heads_upsample": _positive(config.get("num_heads_upsample")),
    }
    if "dim" in config:
        channels, side = int(config["dim"][0]), int(config["dim"][-1])
        mult = config.get("channel_mult") or _DEFAULT_MULT.get(side)
        if mult is None:
            raise UserError(f"The UNet's configuration needs channel_mult for side {side}.")
        common |= {
            "model_channels": int(setting(config, "num_channels")),
            "out_channels": channels * (2 if config.get("learn_sigma") else 1),
            "channel_mult": _multipliers(mult),
            "attention_resolutions": tuple(
                side // int(s) for s in _listed(config.get("attention_resolutions", "16"))
            ),
            "num_classes": int(config.get("num_classes", 1000))
            if config.get("class_cond")
            else None,
        }
    else:
        common |= {
            "model_channels": int(setting(config, "model_channels")),
            "out_channels": int(setting(config, "out_channels")),
            "channel_mult": _multipliers(config.get("channel_mult", (1, 2, 4, 8))),
            "attention_resolutions": tuple(
                int(f) for f in _listed(setting(config, "attention_resolutions"))
            ),
            "num_classes": _positive(config.get("num_classes")),
        }
    return UNet(**common, **options)


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `module_from_config(config)` that compute what the PyTorch module computes.

    Args:
      state_dict: PyTorch names to arrays. config: see `module_from_config`.
    Returns:
      {"params": ...}.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    reader = StateReader(state_dict)
    params = read_unet(reader, module_from_config(config), input_channels(config))
    reader.finish()
    return {"params": params}


def input_channels(config: Mapping[str, Any]) -> int:
    """Channels that the first convolution of a configuration takes."""
    return int(config["dim"][0]) if "dim" in config else int(setting(config, "in_channels"))


def read_unet(
    reader: StateReader, module: UNet, in_channels: int, prefix: str = ""
) -> dict[str, Any]:
    """Parameters of the module from the entries below `prefix`."""
    embedded = 4 * module.model_channels
    params: dict[str, Any] = {
        "time_embed": {
            "in": reader.linear(f"{prefix}time_embed.0", module.model_channels, embedded),
            "out": reader.linear(f"{prefix}time_embed.2", embedded, embedded),
        }
    }
    if module.num_classes is not None:
        params["label_emb"] = reader.embedding(f"{prefix}label_emb", module.num_classes, embedded)

    def read_block(name: str, inputs: int, outputs: int) -> None:
        params[_ours(name)] = residual_block(
            reader, prefix + name, inputs, outputs, embedded, module.use_scale_shift_norm
        )

    def read_attention(name: str, width: int) -> None:
        params[_ours(name)] = attention(reader, prefix + name, width)

    def read_resample(name: str, width: int, layer: str) -> None:
        if module.resblock_updown:
            read_block(name, width, width)
        else:
            params[_ours(name)] = {"conv": reader.conv2d(f"{prefix}{name}.{layer}", width, width)}

    widths = [int(mult * module.model_channels) for mult in module.channel_mult]
    width, factor, last = widths[0], 1, len(widths) - 1
    params["input_blocks_0_0"] = reader.conv2d(f"{prefix}input_blocks.0.0", in_channels, width)
    skips = [width]
    for level, target in enumerate(widths):
        for _ in range(module.num_res_blocks):
            read_block(f"input_blocks.{len(skips)}.0", width, target)
            width = target
            if factor in module.attention_resolutions:
                read_attention(f"input_blocks.{len(skips)}.1", width)
            skips.append(width)
        if level < last:
            read_resample(f"input_blocks.{len(skips)}.0", width, "op")
            skips.append(width)
            factor *= 2

    read_block("middle_block.0", width, width)
    read_attention("middle_block.1", width)
    read_block("middle_block.2", width, width)

    n = 0
    for level in reversed(range(len(widths))):
        for j in range(module.num_res_blocks + 1):
            read_block(f"output_blocks.{n}.0", width + skips.pop(), widths[level])
            width, part = widths[level], 1
            if factor in module.attention_resolutions:
                read_attention(f"output_blocks.{n}.1", width)
                part = 2
            if level > 0 and j == module.num_res_blocks:
                read_resample(f"output_blocks.{n}.{part}", width, "conv")
                factor //= 2
            n += 1

    params["out_norm"] = reader.norm(f"{prefix}out.0", width)
    params["out_conv"] = reader.conv2d(f"{prefix}out.2", width, module.out_channels)
    return params


def residual_block(
    reader: StateReader, name: str, inputs: int, outputs: int, embedded: int, scale_shift: bool
) -> dict[str, Any]:
    """`TimeResidualBlock` parameters from the entries below `name`."""
    modulation = 2 * outputs if scale_shift else outputs
    params = {
        "in_norm": reader.norm(f"{name}.in_layers.0", inputs),
        "in_conv": reader.conv2d(f"{name}.in_layers.2", inputs, outputs),
        "emb": reader.linear(f"{name}.emb_layers.1", embedded, modulation),
        "out_norm": reader.norm(f"{name}.out_layers.0", outputs),
        "out_conv": reader.conv2d(f"{name}.out_layers.3", outputs, outputs),
    }
    if inputs != outputs:
        params["skip"] = reader.conv2d(f"{name}.skip_connection", inputs, outputs, 1)
    return params


def attention(reader: StateReader, name: str, width: int) -> dict[str, Any]:
    """`MultiHeadAttention` parameters from the entries below `name`."""
    return {
        "norm": reader.norm(f"{name}.norm", width),
        "qkv": reader.pointwise(f"{name}.qkv", width, 3 * width, 1),
        "proj_out": reader.pointwise(f"{name}.proj_out", width, width, 1),
    }


def _ours(name: str) -> str:
    return name.replace(".", "_")


def _multipliers(mult: Any) -> tuple[float, ...]:
    return tuple(float(m) for m in _listed(mult))


def _listed(value: Any) -> list:
    if isinstance(value, str):
        return [part for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else list(value)


def _positive(value: Any) -> int | None:
    return None if value is None or int(value) < 1 else int(value)
