"""Frozen image features: a network of the library, published weights, or any Python function.

An encoder brings images to its side, normalises them and gives one row of features for each. The
features of a classifier are what its last linear layer takes; that layer is left out. With
`mirror` they are the sum of those of an image and of its mirror image, each of unit length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flown_jax.data.preprocessing import check_statistics, with_channels
from flown_jax.errors import UserError
from flown_jax.image_encoders import networks
from flown_jax.image_encoders import weights as encoder_weights
from flown_jax.image_encoders.function import Function
from flown_jax.models.heads import FeatureTransform

_FUNCTION = "function"
KINDS = (*networks.KINDS, _FUNCTION)
_FIELDS = {"kind", "sizes", "side", "mean", "std", "mirror"}


@struct.dataclass
class ImageEncoder:
    """Images to features; a pytree, so that a compiled function can take it.

    Made by `from_module`, `from_weights`, `from_function` or `build`, which check it.

    Attributes:
      variables: of the network, without its classifier; {} of a function.
      kind: resnet12, vit, clip_vit, resnet18, convnext or function.
      sizes: JSON of the network's fields; of a function, {"name": "package.module:function"}.
      side: images are resized to it (bilinear, antialiased); 0 takes them as they come.
      mean, std: of each channel, of images in [0, 1]; () normalises nothing.
      mirror: whether the mirror image counts too.
    """

    variables: Any
    kind: str = struct.field(pytree_node=False)
    sizes: str = struct.field(pytree_node=False)
    side: int = struct.field(pytree_node=False)
    mean: tuple[float, ...] = struct.field(pytree_node=False)
    std: tuple[float, ...] = struct.field(pytree_node=False)
    mirror: bool = struct.field(pytree_node=False)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Features (B, F), float32; can be compiled unless the kind is a function.

        Args:
          images: (B, H, W, C), uint8, or floats in [0, 1].
        Raises:
          UserError: images of another rank, of other channels or smaller than the encoder takes;
            a function that gives anything but finite rows of numbers.
        """
        self._check(np.shape(images))
        x = jnp.asarray(images)
        x = x.astype(jnp.float32) / (1 if jnp.issubdtype(x.dtype, jnp.floating) else 255)
        if self.side and x.shape[1:3] != (self.side, self.side):
            shape = (x.shape[0], self.side, self.side, x.shape[3])
            x = jax.image.resize(x, shape, "bilinear", antialias=True)
        if self.mean:
            x = (x - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        forward = self._forward()
        if not self.mirror:
            return forward(x)
        return _unit(forward(x)) + _unit(forward(x[:, :, ::-1]))

    def features(self, images: np.ndarray, chunk: int = 500) -> np.ndarray:
        """Features (m, F) of any number of images, so many at a time.

        Args:
          images: (m, H, W, C), uint8, or floats in [0, 1].
          chunk: images at a time; few images are encoded in a power of two at a time.
        Raises:
          UserError: as in a call; no images; features that are not finite.
        """
        self._check(images.shape)
        if not len(images):
            raise UserError("there are no images to encode.")
        encode: Callable[[ImageEncoder, Any], Any] = _encoded
        size = min(chunk, 1 << (len(images) - 1).bit_length())
        if self.kind == _FUNCTION:
            encode = ImageEncoder.__call__
        encoder, out = jax.device_put(self), []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            # One shape, one compilation: the last chunk is padded.
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            out.append(np.asarray(encode(encoder, padded))[: len(part)])
        features = np.concatenate(out)
        if not np.isfinite(features).all():
            raise UserError(f"the image encoder {self.kind} gave features that are not finite.")
        return features

    def describe(self) -> dict[str, Any]:
        """JSON values that `build` makes the encoder of, together with its variables."""
        return {
            "kind": self.kind,
            "sizes": json.loads(self.sizes),
            "side": self.side,
            "mean": list(self.mean),
            "std": list(self.std),
            "mirror": self.mirror,
        }

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the description and the variables.

        Of a function, of its file and of what it gives on a few fixed pictures, to the last bit.

        Raises:
          UserError: a function whose features cannot be relied on, see `Function.given`.
        """
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        if self.kind == _FUNCTION:
            function = self._function()
            digest.update(function.source())
            digest.update(function.given(self.side, (len(self.mean),) if self.mean else (1, 3)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _forward(self) -> Callable[[jax.Array], jax.Array]:
        if self.kind == _FUNCTION:
            return lambda images: jnp.asarray(self._function()(np.asarray(images)))
        module = networks.module(self.kind, json.loads(self.sizes))
        return lambda images: networks.features(self.kind, module, self.variables, images)

    def _function(self) -> Function:
        return Function(json.loads(self.sizes)["name"])

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuses images that the encoder cannot take."""
        if len(shape) != 4 or 0 in shape[1:]:
            raise UserError(f"images must be (B, H, W, C) for an image encoder, not {shape}.")
        channels = len(self.mean) or shape[3]
        if self.kind != _FUNCTION:
            channels = networks.channels(self.kind, self.variables)
        if shape[3] != channels:
            colours = {1: "grey images (1 channel)", 3: "colour images (3 channels)"}
            takes = colours.get(channels, f"images of {channels} channels")
            raise UserError(
                f"the image encoder {self.kind} takes {takes}, and these have {shape[3]}: "
                f"their shape is {tuple(shape)}."
            )
        if self.kind != _FUNCTION:
            sides = (self.side, self.side) if self.side else shape[1:3]
            sizes = json.loads(self.sizes)
            networks.check_sides(self.kind, sizes, self.variables, *sides)


def build(description: Mapping[str, Any], variables: Any) -> ImageEncoder:
    """The encoder of a description (see `ImageEncoder.describe`) and its variables.

    Raises:
      UserError: an unknown kind or field, variables of another network, a side that the network
        cannot take, mean and std of other channels, a function that cannot be imported.
    """
    if set(description) != _FIELDS:
        raise UserError(
            f"an image encoder's description has the fields {', '.join(sorted(_FIELDS))}, not "
            f"{', '.join(sorted(map(str, description))) or 'none'}."
        )
    kind, sizes = description["kind"], dict(description["sizes"])
    mean, std = (tuple(float(x) for x in description[name]) for name in ("mean", "std"))
    side, mirror = description["side"], description["mirror"]
    if isinstance(side, bool) or not isinstance(side, int) or side < 0:
        raise UserError(f"side of an image encoder is pixels, or 0 for none, not {side!r}.")
    if kind == _FUNCTION:
        Function(sizes.get("name"))
        variables = {}
    else:
        sizes, variables = networks.checked(kind, sizes, variables)
    if len(mean) != len(std) or min(std, default=1) <= 0:
        raise UserError(f"mean {mean} and std {std} must be as many numbers, std above 0.")
    check_statistics(mean, std)
    text = json.dumps(sizes, sort_keys=True)
    encoder = ImageEncoder(variables, kind, text, side, mean, std, bool(mirror))
    if kind != _FUNCTION:
        channels = networks.channels(kind, variables)
        if len(mean) not in (0, channels):
            raise UserError(
                f"mean and std have {len(mean)} numbers, and the image encoder {kind} takes "
                f"images of {channels} channels."
            )
        if side:
            encoder._check((1, side, side, channels))
    return encoder


def from_module(
    module: Any,
    variables: Mapping[str, Any],
    *,
    side: int = 0,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    mirror: bool = False,
) -> ImageEncoder:
    """The encoder of a base model and its variables; a classifier's parameters are left out.

    Args:
      module: ResNet12, VisionTransformer (of either form), ResNet18 or ConvNeXt.
      variables: {"params"} and, with BatchNorm, {"batch_stats"}.
      side, mean, std, mirror: as in `ImageEncoder`.
    Raises:
      UserError: another module, or as in `build`.
    """
    kind, sizes = networks.describe(module)
    return build(_description(kind, sizes, side, mean, std, mirror), variables)


def from_weights(
    kind: str,
    path: str | Path,
    *,
    side: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mirror: bool,
    **fields: Any,
) -> ImageEncoder:
    """The encoder of published weights, a PyTorch or .safetensors file.

    Args:
      kind: resnet12 (Meta-Baseline's names), vit and convnext (timm's; a ViT may lack its head),
        clip_vit (OpenAI's or Hugging Face's), resnet18 (with a CIFAR stem).
      path: the file; a classifier in it is left out.
      side, mean, std, mirror: as in `ImageEncoder`.
      fields: of the network, where they differ from what the tensors' shapes say (heads are 64
        wide up to a width of 1024, and have to be told above it) or cannot be read off them
        (epsilon, activation).
    Raises:
      UserError: an unknown kind; a file that is absent, damaged or of another network; or as in
        `build`.
    """
    networks.check_kind(kind)
    sizes, variables = encoder_weights.read(kind, Path(path), fields)
    return build(_description(kind, sizes, side, mean, std, mirror), variables)


def from_function(name: str, *, side: int, mirror: bool) -> ImageEncoder:
    """The encoder that is a Python function, of any library.

    Args:
      name: "package.module:function"; the function takes float32 images (B, H, W, C) in [0, 1],
        a NumPy array, and gives features (B, F), anything that NumPy takes.
      side, mirror: as in `ImageEncoder`.
    Raises:
      UserError: it cannot be imported or called.
    """
    return build(_description(_FUNCTION, {"name": name}, side, (), (), mirror), {})


def encoded(
    encoder: ImageEncoder, transform: FeatureTransform, images: np.ndarray, channels: int
) -> np.ndarray:
    """Transformed features (m, F) of images of any number of channels.

    Args:
      images: (m, H, W, 1 or 3) uint8.
      channels: that the encoder takes: colour becomes grey, grey is repeated.
    """
    features = encoder.features(with_channels(images, channels))
    return np.asarray(transform.apply(jnp.asarray(features)))


@jax.jit
def _encoded(encoder: ImageEncoder, images: jax.Array) -> jax.Array:
    return encoder(images)


def _unit(features: jax.Array) -> jax.Array:
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _description(
    kind: str, sizes: Any, side: int, mean: Any, std: Any, mirror: bool
) -> dict[str, Any]:
    return dict(kind=kind, sizes=sizes, side=side, mean=mean, std=std, mirror=mirror)
