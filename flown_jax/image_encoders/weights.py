"""Published weights of image encoders: a file in, the network's fields and variables out.

Widths and depths are read off the shapes of the tensors. A classifier is left out: what stands
for it in the file, if anything, is replaced by one of a single class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.models import layout
from flown_jax.torch_import import convert
from flown_jax.torch_import.files import read_state_dict
from flown_jax.torch_import.names import fitting

_HEAD_WIDTH = 64
# Wider transformers have heads of 72 to 104 numbers, as it pleased their makers.
_WIDEST_OF_64 = 1024
# An entry of each kind that no prefix may stand before; counters that are no weights.
_ANCHORS = {
    "resnet12": ("layer1.conv1.weight", "encoder.layer1.conv1.weight"),
    "vit": ("patch_embed.proj.weight",),
    "clip_vit": ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    "resnet18": ("conv1.weight",),
    "convnext": ("stem.0.weight",),
}
_COUNTERS = ("num_batches_tracked", "position_ids")
State = dict[str, np.ndarray]
# Fields of the network, the state dict with a stand-in for the classifier, and what else the
# converter has to know.
_Read = tuple[dict[str, Any], State, dict[str, Any]]


def read(kind: str, path: Path, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the network and its variables.

    Args:
      kind: resnet12, vit, clip_vit, resnet18 or convnext.
      path: a PyTorch or .safetensors file; parts that all names begin with are taken off.
      fields: those of the network that are to be other than inferred.
    Raises:
      UserError: the file is absent or damaged, holds another network, or numbers that are none;
        or no shape tells the heads of a transformer as wide as this.
    """
    state = read_state_dict(path)
    try:
        state = fitting(state, lambda names: not set(_ANCHORS[kind]).isdisjoint(names))
        sizes, state, config = _READERS[kind](state)
        sizes |= fields
        if "num_heads" not in fields and sizes.get("embed_dim", 0) > _WIDEST_OF_64:
            raise UserError(
                f"no shape tells the number of heads of a width of {sizes['embed_dim']}; give "
                "num_heads"
            )
        names = _CLIP_NAMES if kind == "clip_vit" else {}
        renamed = {names.get(name, name): value for name, value in sizes.items()}
        variables = convert(kind, state, renamed | config)
        _check_numbers(state, variables)
        return sizes, variables
    except UserError as error:
        raise UserError(f"{path} holds no {kind} of these sizes: {error}") from error


def _check_numbers(state: State, variables: Mapping[str, Any]) -> None:
    for name, value in state.items():
        whole = not jnp.issubdtype(value.dtype, jnp.floating)
        if whole and value.ndim and not name.endswith(_COUNTERS):
            raise UserError(f"its entry {name!r} holds {value.dtype}, no floating-point numbers")
    for path, leaf in layout.leaves(variables):
        if not np.isfinite(leaf).all():
            raise UserError(f"its numbers of {path} are NaN or infinite")


def _resnet12(state: State) -> _Read:
    state = {name.removeprefix("encoder."): value for name, value in state.items()}
    state = _without(state, "classifier.")
    blocks = max(1, _count(state, r"layer\d+\.conv1\.weight"))
    shapes = [_shape(state, f"layer{i}.conv1.weight", 4) for i in range(1, blocks + 1)]
    channels = tuple(shape[0] for shape in shapes)
    return {"channels": channels}, state, {"in_channels": shapes[0][1]}


def _vit(state: State) -> _Read:
    width, colours, patch, _ = _shape(state, "patch_embed.proj.weight", 4)
    sizes = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": _count(state, r"blocks\.\d+\.norm1\.weight"),
        "num_heads": max(1, width // _HEAD_WIDTH),
        "mlp_ratio": _shape(state, "blocks.0.mlp.fc1.weight", 2)[0] // width,
    }
    side = _side(_shape(state, "pos_embed", 3)[1], patch)
    state = _without(state, "head.") | _one_class("head", width)
    return sizes, state, {"img_size": side, "in_channels": colours, "num_classes": 1}


def _clip_vit(state: State) -> _Read:
    if any(name.startswith("vision_model.") for name in state):
        embeddings = "vision_model.embeddings"
        width, colours, patch, _ = _shape(state, f"{embeddings}.patch_embedding.weight", 4)
        positions = _shape(state, f"{embeddings}.position_embedding.weight", 2)[0]
        depth = _count(state, r"vision_model\.encoder\.layers\.\d+\.layer_norm1\.weight")
        outputs = _shape(state, "visual_projection.weight", 2)[0]
    else:
        width, colours, patch, _ = _shape(state, "visual.conv1.weight", 4)
        positions = _shape(state, "visual.positional_embedding", 2)[0]
        depth = _count(state, r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight")
        outputs = _shape(state, "visual.proj", 2)[1]
    sizes = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": max(1, width // _HEAD_WIDTH),
        "num_classes": outputs,
    }
    side = _side(positions, patch)
    return sizes, state, {"input_resolution": side, "in_channels": colours}


def _resnet18(state: State) -> _Read:
    width, colours = _shape(state, "conv1.weight", 4)[:2]
    torchvision = any(".downsample." in name for name in state)
    head = "fc" if torchvision else "linear"
    state = _without(state, f"{head}.") | _one_class(head, 8 * width)
    return {"width": width}, state, {"in_channels": colours, "num_classes": 1}


def _convnext(state: State) -> _Read:
    colours = _shape(state, "stem.0.weight", 4)[1]
    stages = max(1, _count(state, r"stages\.\d+\.blocks\.0\.gamma"))
    sizes = {
        "depths": tuple(_count(state, rf"stages\.{s}\.blocks\.\d+\.gamma") for s in range(stages)),
        "dims": tuple(_shape(state, f"stages.{s}.blocks.0.gamma", 1)[0] for s in range(stages)),
    }
    state = _without(state, "head.fc.") | _one_class("head.fc", sizes["dims"][-1])
    return sizes, state, {"in_channels": colours, "num_classes": 1}


_READERS: dict[str, Callable[[State], _Read]] = {
    "resnet12": _resnet12,
    "vit": _vit,
    "clip_vit": _clip_vit,
    "resnet18": _resnet18,
    "convnext": _convnext,
}
# Fields that the converter of CLIP knows by OpenAI's names.
_CLIP_NAMES = {
    "embed_dim": "width",
    "depth": "layers",
    "num_heads": "heads",
    "num_classes": "output_dim",
}


def _shape(state: State, name: str, rank: int) -> tuple[int, ...]:
    """Shape of an entry with so many axes."""
    if name not in state:
        raise UserError(f"it has no entry {name!r}")
    if state[name].ndim != rank:
        raise UserError(f"its entry {name!r} has the shape {state[name].shape}")
    return state[name].shape


def _count(state: State, pattern: str) -> int:
    """Number of entries whose whole name is matched."""
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _side(positions: int, patch: int) -> int:
    """Side of the images of so many positions, the class token's included."""
    return round((positions - 1) ** 0.5) * patch


def _without(state: State, prefix: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(prefix)}


def _one_class(name: str, width: int) -> State:
    return {
        f"{name}.weight": np.zeros((1, width), np.float32),
        f"{name}.bias": np.zeros(1, np.float32),
    }
