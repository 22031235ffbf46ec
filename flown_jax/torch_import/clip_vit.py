"""The visual tower of a CLIP state dict as variables of `models.vit.VisionTransformer`.

    module = VisionTransformer(**clip_vit_sizes(config))
    features = module.apply(convert("clip_vit", state_dict, config), images)

The features are the projected ones, not yet of unit length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.models import layout, registry
from flown_jax.torch_import import by_names
from flown_jax.torch_import.common import StateReader, setting

_HEAD_WIDTH = 64
# Hugging Face's names of what OpenAI calls otherwise, tower and block.
_TOWER = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre": "vision_model.pre_layrnorm",  # spelt so
    "ln_post": "vision_model.post_layernorm",
}
_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_2": "layer_norm2",
}


def clip_vit_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the `VisionTransformer` that is CLIP's visual tower.

    Args:
      config: OpenAI's names: patch_size, width, layers, output_dim, and heads, width / 64 unless
        given; also activation, quick_gelu unless given.
    Raises:
      UserError: one is missing.
    """
    width = setting(config, "width")
    return {
        "patch_size": setting(config, "patch_size"),
        "embed_dim": width,
        "depth": setting(config, "layers"),
        "num_heads": config.get("heads", width // _HEAD_WIDTH),
        "num_classes": setting(config, "output_dim"),
        "epsilon": 1e-5,
        "activation": config.get("activation", "quick_gelu"),
        "form": "clip",
    }


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute the image features of the checkpoint.

    Args:
      state_dict: a whole CLIP or its visual tower, in OpenAI's names (`visual.*`) or Hugging
        Face's (`vision_model.*` and `visual_projection.weight`); the text's entries are left out.
      config: as in `clip_vit_sizes`; also input_resolution, 224 unless given.
    Raises:
      UserError: missing, extra or mis-shaped entries of the visual tower, by name.
    """
    module = registry.build("vit", clip_vit_sizes(config))
    image_shape = by_names.image_shape(config, config.get("input_resolution", 224))
    hugging_face = any(name.startswith("vision_model.") for name in state_dict)
    prefixes = ("vision_model.", "visual_projection.") if hugging_face else ("visual.",)
    visual = {k: v for k, v in state_dict.items() if k.startswith(prefixes)}
    if hugging_face:
        return _from_hugging_face(visual, module, image_shape)
    return by_names.read(visual, module, image_shape)


def _from_hugging_face(
    state: dict[str, Any], module: Any, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    state.pop("vision_model.embeddings.position_ids", None)  # a counter of older versions
    reader, shapes = StateReader(state), by_names.linen_shapes(module, image_shape)
    width = module.embed_dim
    flat: dict[str, np.ndarray] = {}
    for name, path in module.state_dict_names().items():
        name = name.removeprefix("visual.")
        if path.startswith("params/blocks_") and "in_proj" in name:
            continue
        if name != "proj":
            flat[path] = by_names.take(reader, _hugging_face_name(name), path, shapes[path])
    for i in range(module.depth):
        attention = f"vision_model.encoder.layers.{i}.self_attn"
        parts = [reader.linear(f"{attention}.{p}_proj", width, width) for p in "qkv"]
        for leaf in ("kernel", "bias"):
            joined = np.concatenate([part[leaf] for part in parts], axis=-1)
            flat[f"params/blocks_{i}/qkv/{leaf}"] = joined
    projection = reader.linear("visual_projection", width, module.num_classes, bias=False)
    flat["params/proj"] = projection["kernel"]
    reader.finish()
    return layout.nested(flat)


def _hugging_face_name(name: str) -> str:
    blocks = "transformer.resblocks."
    if name in _TOWER:
        return _TOWER[name]
    if not name.startswith(blocks):
        layer, _, leaf = name.rpartition(".")
        return f"{_TOWER[layer]}.{leaf}"
    index, _, inner = name.removeprefix(blocks).partition(".")
    layer, _, leaf = inner.rpartition(".")
    return f"vision_model.encoder.layers.{index}.{_BLOCK[layer]}.{leaf}"
