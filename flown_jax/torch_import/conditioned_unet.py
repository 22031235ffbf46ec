"""D2NWG's noise predictor: a UNet that sees a map made of the data set's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.torch_import import unet
from flown_jax.torch_import.common import StateReader, setting
from flown_jax.velocity.dataset_condition import ConditionedUNet, DatasetCondition

_UNET, _CONDITION = "diffusion_model.", "cond_stage_model."


def module_from_config(config: Mapping[str, Any], **options: Any) -> ConditionedUNet:
    """The module of a configuration with the original names.

    Args:
      config: `unet`, with ADM's names (see `torch_import.unet`), and `cond`, with `num_classes`,
        `num_samples`, `out_dim`, `embed_dim` (width of the features), `in_ch` and `input_size` of
        the map.
      options: further fields of the UNet (`form`, `dtype`, `time_scale`).
    Raises:
      UserError: a missing entry.
    """
    condition = setting(config, "cond")
    encoder = DatasetCondition(
        max_inputs=int(setting(condition, "num_classes")) * int(setting(condition, "num_samples")),
        out_dim=int(setting(condition, "out_dim")),
        side=int(setting(condition, "input_size")),
        channels=int(setting(condition, "in_ch")),
    )
    return ConditionedUNet(unet.module_from_config(setting(config, "unet"), **options), encoder)


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `module_from_config(config)` that compute what the PyTorch modules compute.

    Args:
      state_dict: PyTorch names, with the prefixes `diffusion_model.` and `cond_stage_model.`, to
        arrays. config: see `module_from_config`.
    Returns:
      {"params": ...}.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module = module_from_config(config)
    encoder, width = module.dataset_condition, int(setting(config["cond"], "embed_dim"))
    reader = StateReader(state_dict)
    network = unet.read_unet(reader, module.unet, unet.input_channels(config["unet"]), prefix=_UNET)
    across = reader.take(f"{_CONDITION}dense1.weight", (encoder.out_dim, encoder.max_inputs))
    outputs = encoder.channels * encoder.side**2
    condition = {
        "across_kernel": np.ascontiguousarray(across.T),
        "across_bias": reader.take(f"{_CONDITION}dense1.bias", (encoder.out_dim,)),
        "to_map": reader.linear(f"{_CONDITION}dense2", encoder.out_dim * width, outputs),
    }
    reader.finish()
    return {"params": {"unet": network, "dataset_condition": condition}}
