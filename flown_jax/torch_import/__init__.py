"""PyTorch state dicts of published networks, turned into linen variables."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from flown_jax.errors import UserError
from flown_jax.torch_import.names import without_wrappers

_KINDS = {
    "autoencoder_kl": "autoencoder_kl",
    "unet": "unet",
    "conditioned_unet": "conditioned_unet",
    "caml": "caml",
    "resnet12": "resnet12",
    "cnn": "cnn",
    "resnet18": "resnet18",
    "vit": "vit",
    "convnext": "convnext",
    "mlp": "mlp",
    "clip_vit": "clip_vit",
    "relational_transformer": "relational_transformer",
    "graph_encoder": "graph_encoder",
    "pna": "pna",
    "pdiff_autoencoder": "pdiff_autoencoder",
    "pdiff_denoiser": "pdiff_denoiser",
}


def convert(kind: str, state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the linen module of this kind that compute what the PyTorch module computes.

    Args:
      kind: the network's family, one of `autoencoder_kl, unet, conditioned_unet, caml, resnet12,
        cnn, resnet18, vit, convnext, mlp, clip_vit, relational_transformer, graph_encoder, pna,
        pdiff_autoencoder, pdiff_denoiser`.
      state_dict: PyTorch names to arrays (anything that `numpy.asarray` takes), with or without
        the parts that `DataParallel` and `torch.compile` put before names.
      config: the sizes of the network, with the names of the original code.
    Returns:
      Variables for `module.apply`.
    Raises:
      UserError: unknown kind; missing, extra or mis-shaped entries, by name.
    """
    if kind not in _KINDS:
        raise UserError(
            f"torch_import knows no kind {kind!r}; it knows {', '.join(sorted(_KINDS))}."
        )
    module = importlib.import_module(f"flown_jax.torch_import.{_KINDS[kind]}")
    return module.convert(without_wrappers(state_dict), config)
