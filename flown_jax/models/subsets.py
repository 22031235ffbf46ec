"""The part of a large network that is generated: its last normalisations (paper table 8).

2,048 values of ResNet-18 and 3,072 of ViT-B or ConvNeXt-T. BatchNorm's running statistics are no
part of it; they stay with the host network.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from flown_jax.errors import UserError


def last_norms(name: str, module: nn.Module) -> tuple[str, ...]:
    """PyTorch names of the last two normalisations' weights and biases, in the vector's order.

    For a `WeightSpec`: `spec.subset(set(last_norms(name, module)).__contains__)`.

    Args:
      name: of the model in `models.registry`: resnet18, vit or convnext.
      module: the network, whose sizes say which layers are the last.
    Raises:
      UserError: another model.
    """
    if name not in _NORMS:
        raise UserError(
            f"no subset of normalisations is defined for {name!r}, only for {', '.join(_NORMS)}."
        )
    wanted = [f"params/{norm}" for norm in _NORMS[name](module)]
    return tuple(
        torch_name
        for torch_name, path in module.state_dict_names().items()
        if path.rpartition("/")[0] in wanted
    )


def _resnet18(module: Any) -> tuple[str, str]:
    return "layer4_1/bn1", "layer4_1/bn2"


def _vit(module: Any) -> tuple[str, str]:
    return f"blocks_{module.depth - 1}/norm2", "norm"


def _convnext(module: Any) -> tuple[str, str]:
    last = len(module.depths) - 1
    return f"stage_{last}_block_{module.depths[last] - 1}/norm", "head_norm"


_NORMS = {"resnet18": _resnet18, "vit": _vit, "convnext": _convnext}
