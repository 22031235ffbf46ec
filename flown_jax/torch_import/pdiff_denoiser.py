"""p-diff's noise predictor of February 2024 (same names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.torch_import.common import StateReader, setting
from flown_jax.velocity.pdiff_denoiser import PDiffDenoiser


def module_from_config(config: Mapping[str, Any], **options: Any) -> PDiffDenoiser:
    """The module of a configuration.

    Args:
      config: `channels` of the blocks down and `time_steps`; published: 64, 128, 256, 512 and 1000,
        which are the defaults. options: further fields (`first_time`).
    """
    default = PDiffDenoiser()
    return PDiffDenoiser(
        channels=tuple(int(c) for c in config.get("channels", default.channels)),
        timesteps=int(config.get("time_steps", default.timesteps)),
        **options,
    )


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `module_from_config(config)` that compute what the PyTorch module computes.

    Args:
      config: see `module_from_config`, with `in_dim`, the entries of one latent.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module, reader = module_from_config(config), StateReader(state_dict)
    down, up = tuple(module.channels), tuple(module.channels)[::-1]
    size = int(setting(config, "in_dim"))
    params: dict[str, Any] = {
        "time": reader.embedding("time_encode", module.timesteps, size),
    }
    before = 1
    for i, width in enumerate(down, 1):
        # The first block has no leaky ReLU before its normalisation.
        first, second = (1, 4) if i == 1 else (2, 5)
        params[f"enc_{i}"] = {
            "conv_1": reader.conv1d(f"enc{i}.{first}", before, width, 3),
            "conv_2": reader.conv1d(f"enc{i}.{second}", width, width, 3),
        }
        before = width
    for i, width in enumerate((*up[1:], down[0]), 1):
        out = 1 if i == len(down) else width
        params[f"dec_{i}"] = {
            "conv_1": reader.conv1d(f"dec{i}.2", before, width, 3),
            "conv_2": reader.conv1d(f"dec{i}.5", width, out, 3),
        }
        before = width
    reader.finish()
    return {"params": params}
