"""p-diff's one-dimensional autoencoder of February 2024 (same names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.encoders.pdiff_autoencoder import PDiffAutoencoder
from flown_jax.torch_import.common import StateReader, setting


def module_from_config(config: Mapping[str, Any]) -> PDiffAutoencoder:
    """The module of a configuration with the original names.

    Args:
      config: `in_dim`, `kernel_size`, `fold_rate`, `enc_channels`, `dec_channels`.
    Raises:
      UserError: a missing entry.
    """
    return PDiffAutoencoder(
        in_dim=int(setting(config, "in_dim")),
        kernel=int(setting(config, "kernel_size")),
        fold=int(setting(config, "fold_rate")),
        encoder_channels=tuple(int(c) for c in setting(config, "enc_channels")),
        decoder_channels=tuple(int(c) for c in setting(config, "dec_channels")),
    )


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `module_from_config(config)` that compute what the PyTorch module computes.

    Latents are (B, L, C), where PyTorch's are (B, C, L).

    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module, reader = module_from_config(config), StateReader(state_dict)
    k, params = module.kernel, {}
    before = 1
    for i, out in enumerate(module.encoder_channels):
        inner = module.encoder_channels[max(i - 1, 0)]
        name = f"encoder.encoder.{i}"
        params[f"encoder_{2 * i}"] = reader.conv1d(f"{name}.2", before, inner, k)
        params[f"encoder_{2 * i + 1}"] = reader.conv1d(f"{name}.5", inner, out, k)
        before = out
    for i, channels in enumerate(module.decoder_channels):
        out = (*module.decoder_channels, 1)[i + 1]
        name = f"decoder.decoder.{i}"
        params[f"decoder_{2 * i}"] = reader.conv_transpose1d(f"{name}.2", channels, channels, k)
        params[f"decoder_{2 * i + 1}"] = reader.conv1d(f"{name}.5", channels, out, k)
    reader.finish()
    return {"params": params}
