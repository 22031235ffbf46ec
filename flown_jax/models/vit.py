"""Vision transformers: timm's ViT (paper table 8) and the visual tower of CLIP.

Patches in row order with a class token in front, a learned position added to all of them, blocks
that normalise before attention and MLP. The first token is read after the last normalisation.
The 3 x width outputs of `qkv` are all q, all k, all v, each head by head.
Sources: Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; Radford et al., Learning
Transferable Visual Models From Natural Language Supervision, 2021.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.models import state_names
from flown_jax.models.activations import get_activation

_TRUNCATED = nn.initializers.truncated_normal(0.02)
_BLOCK = {
    "timm": {
        "norm1": "norm1",
        "attn.qkv": "qkv",
        "attn.proj": "proj",
        "norm2": "norm2",
        "mlp.fc1": "fc1",
        "mlp.fc2": "fc2",
    },
    "clip": {
        "attn.in_proj": "qkv",
        "attn.out_proj": "proj",
        "ln_1": "norm1",
        "mlp.c_fc": "fc1",
        "mlp.c_proj": "fc2",
        "ln_2": "norm2",
    },
}


class VisionTransformer(nn.Module):
    """Class logits of images, or CLIP's image features; the defaults are timm's ViT-B/16.

    Attributes:
      patch_size, embed_dim, depth, num_heads: as in timm; `mlp_ratio` is the MLP's width in
        units of embed_dim.
      num_classes: width of the output; in CLIP, of the features.
      epsilon: of LayerNorm, 1e-6 in timm and 1e-5 in CLIP.
      activation: of the MLP, `gelu` in timm and `quick_gelu` in CLIP.
      form: `timm` or `clip`, which has no bias in the patches' convolution, a normalisation
        before the blocks, and a matrix without bias as its head.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: heads that do not divide the width, an unknown form or activation.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    num_classes: int = 10
    epsilon: float = 1e-6
    activation: str = "gelu"
    form: str = "timm"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.form not in _BLOCK:
            raise UserError(f"form must be one of {', '.join(_BLOCK)}, not {self.form!r}.")
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise UserError(f"{self.num_heads} heads cannot divide a width of {self.embed_dim}.")
        get_activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Logits or features, (B, num_classes).

        Args:
          images: (B, H, W, C), sides that are multiples of the patch.
          train: has no effect, the network is the same in training.
          return_stages: also return {"tokens": the input of the blocks, "block_0": ..., "norm":
            after the last normalisation}, each (B, 1 + H W / patch_size^2, embed_dim).
        Raises:
          UserError: images of another rank, or of sides that the patch or the positions do not
            fit.
        """
        del train
        tokens = self._embedded(self._patches(images))
        stages = {"tokens": tokens}
        x = tokens
        for i in range(self.depth):
            x = stages[f"block_{i}"] = _Block(
                self.num_heads,
                self.mlp_ratio,
                self.epsilon,
                self.activation,
                self.dtype,
                name=f"blocks_{i}",
            )(x)
        x = stages["norm"] = _layer_norm(self.epsilon, self.dtype, "norm")(x)
        if self.form == "clip":
            scale = nn.initializers.normal(self.embed_dim**-0.5)
            head = self.param("proj", scale, (self.embed_dim, self.num_classes))
            out = jnp.dot(x[:, 0], head.astype(self.dtype))
        else:
            out = _dense(self.num_classes, self.dtype, "head")(x[:, 0])
        return (out, stages) if return_stages else out

    def state_dict_names(self) -> dict[str, str]:
        """PyTorch's names (timm's, or `visual.*` of CLIP), in order, and the paths here."""
        if self.form == "clip":
            names = {
                "visual.class_embedding": "params/class_embedding",
                "visual.positional_embedding": "params/positional_embedding",
                "visual.proj": "params/proj",
                "visual.conv1.weight": "params/patch_embed/kernel",
                **state_names.norm("visual.ln_pre", "norm_pre"),
            }
            blocks, norm = "visual.transformer.resblocks", "visual.ln_post"
        else:
            names = {
                "cls_token": "params/cls_token",
                "pos_embed": "params/pos_embed",
                **state_names.layer("patch_embed.proj", "patch_embed"),
            }
            blocks, norm = "blocks", "norm"
        for i in range(self.depth):
            for torch, ours in _BLOCK[self.form].items():
                torch, ours = f"{blocks}.{i}.{torch}", f"blocks_{i}/{ours}"
                pair = state_names.norm if "norm" in ours else state_names.layer
                names |= pair(torch, ours)
        names |= state_names.norm(norm, "norm")
        if self.form == "timm":
            return names | state_names.layer("head", "head")
        # CLIP's fused projection is no layer but two bare parameters.
        return {name.replace("in_proj.", "in_proj_"): path for name, path in names.items()}

    def _patches(self, images: Array) -> Array:
        """Embedded patches, (B, H W / patch_size^2, embed_dim)."""
        size = self.patch_size
        if images.ndim != 4 or images.shape[1] % size or images.shape[2] % size:
            raise UserError(
                f"images {images.shape} must be (B, H, W, C) with sides that are multiples of "
                f"the patch, {size}."
            )
        maps = nn.Conv(
            self.embed_dim,
            (size, size),
            strides=size,
            padding="VALID",
            use_bias=self.form == "timm",
            kernel_init=torch_kernel,
            bias_init=torch_uniform(size * size * images.shape[-1]),
            dtype=self.dtype,
            name="patch_embed",
        )(images.astype(self.dtype))
        return maps.reshape(maps.shape[0], -1, self.embed_dim)

    def _embedded(self, patches: Array) -> Array:
        """Tokens with class token and positions, normalised in CLIP."""
        count, width = patches.shape[1] + 1, self.embed_dim
        clip = self.form == "clip"
        position_name = "positional_embedding" if clip else "pos_embed"
        if self.has_variable("params", position_name):
            stored = self.get_variable("params", position_name).shape[-2]
            if stored != count:
                raise UserError(
                    f"the images have {count - 1} patches, where the network has positions for "
                    f"{stored - 1}."
                )
        if clip:
            scale = nn.initializers.normal(width**-0.5)
            token = self.param("class_embedding", scale, (width,))
            positions = self.param(position_name, scale, (count, width))
        else:
            token = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, width))
            positions = self.param(position_name, _TRUNCATED, (1, count, width))
        token = jnp.broadcast_to(token.astype(self.dtype), (patches.shape[0], 1, width))
        tokens = jnp.concatenate([token, patches], axis=1) + positions.astype(self.dtype)
        return _layer_norm(self.epsilon, self.dtype, "norm_pre")(tokens) if clip else tokens


class _Block(nn.Module):
    num_heads: int
    mlp_ratio: int
    epsilon: float
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, count, width = x.shape
        h = _layer_norm(self.epsilon, self.dtype, "norm1")(x)
        qkv = _dense(3 * width, self.dtype, "qkv")(h)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, count, 3, self.num_heads, -1), 2, 0)
        scores = jnp.einsum("bihd,bjhd->bhij", q * q.shape[-1] ** -0.5, k)
        attended = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores, -1), v)
        x = x + _dense(width, self.dtype, "proj")(attended.reshape(batch, count, width))
        h = _layer_norm(self.epsilon, self.dtype, "norm2")(x)
        h = _dense(self.mlp_ratio * width, self.dtype, "fc1")(h)
        return x + _dense(width, self.dtype, "fc2")(get_activation(self.activation)(h))


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_TRUNCATED, dtype=dtype, name=name)


def _layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)
