"""The networks that encode images, and what is known of each: its head, its stem, its sides."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import registry


@dataclass(frozen=True)
class _Network:
    """A kind of encoder.

    Attributes:
      model: its name in `models.registry`.
      head: name of the linear layer that classifies; None where there is none.
      stem: path of the parameters of the first convolution.
      unused: fields that have no part in the features.
    """

    model: str
    head: str | None
    stem: tuple[str, ...]
    unused: tuple[str, ...] = ("num_classes",)


_NETWORKS = {
    "resnet12": _Network("resnet12", "classifier", ("layer1", "conv1")),
    "vit": _Network("vit", "head", ("patch_embed",)),
    "clip_vit": _Network("vit", None, ("patch_embed",), unused=()),
    "resnet18": _Network("resnet18", "linear", ("conv1",), unused=("num_classes", "names")),
    "convnext": _Network("convnext", "head", ("stem_conv",)),
}
KINDS = tuple(_NETWORKS)
_CLIP = {"form": "clip", "epsilon": 1e-5, "activation": "quick_gelu"}


def check_kind(kind: Any) -> None:
    """Refuses an unknown kind of network.

    Raises:
      UserError: it is none of ours.
    """
    if kind not in _NETWORKS:
        raise UserError(
            f"an image encoder's kind is {kind!r}; it must be one of {', '.join(_NETWORKS)} or "
            "function."
        )


def module(kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The network of a kind and its fields.

    Raises:
      UserError: an unknown kind or field, a value of another type, a form of the other kind.
    """
    check_kind(kind)
    if kind == "clip_vit":
        sizes = {**_CLIP, **sizes}
    if kind in ("vit", "clip_vit") and (sizes.get("form") == "clip") != (kind == "clip_vit"):
        raise UserError(f"a {kind} cannot have the form {sizes['form']!r}.")
    built = registry.build(_NETWORKS[kind].model, sizes)
    # A ResNet-12 makes the parameters of its classifier whenever it has one.
    return built.clone(num_classes=None) if kind == "resnet12" else built


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """Kind and fields of a network, those left out that the features do not depend on.

    Raises:
      UserError: it is no network that encodes images.
    """
    name, sizes = registry.describe(network)
    kind = "clip_vit" if sizes.get("form") == "clip" else name
    check_kind(kind)
    return kind, {k: v for k, v in sizes.items() if k not in _NETWORKS[kind].unused}


def checked(
    kind: str, sizes: Mapping[str, Any], variables: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All fields of the network, and its variables without the classifier's.

    Raises:
      UserError: as in `module`; variables that are missing, superfluous or mis-shaped.
    """
    network = module(kind, sizes)
    params = variables.get("params", {})
    params = {k: v for k, v in params.items() if k != _NETWORKS[kind].head}
    found = {"params": params}
    if "batch_stats" in variables:
        found["batch_stats"] = variables["batch_stats"]
    try:
        stem = channels(kind, found)
        side = smallest_side(kind, network, found)
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"the variables are no {kind}'s: they have no {error}.") from error
    # Vision transformers make their positions of the image's size: it is the stored ones'.
    expected, have = _expected(kind, network, side, stem), _shapes(found)
    for path in sorted(expected.keys() | have.keys()):
        if expected.get(path) != have.get(path):
            raise UserError(
                f"the variables are no {kind}'s of these sizes: {path} is "
                f"{have.get(path, 'absent')} and must be {expected.get(path, 'absent')}."
            )
    return describe(network)[1], found


@functools.lru_cache(maxsize=32)  # a network is traced once, not at every look at its variables
def _expected(kind: str, network: nn.Module, side: int, stem: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the variables without the classifier's, by path."""

    def initial(image: jax.Array) -> Any:
        with nn.intercept_methods(_without(_NETWORKS[kind].head)):
            return network.init(jax.random.key(0), image)

    image = jax.ShapeDtypeStruct((1, side, side, stem), jnp.float32)
    return _shapes(jax.eval_shape(initial, image))


def features(kind: str, network: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """What the classifier would take, (B, F); of CLIP, the projected features."""
    with nn.intercept_methods(_without(_NETWORKS[kind].head)):
        return network.apply(variables, images)


def channels(kind: str, variables: Any) -> int:
    """Channels of the images that the network takes."""
    layer = variables["params"]
    for name in _NETWORKS[kind].stem:
        layer = layer[name]
    return np.shape(layer["kernel"])[-2]


def smallest_side(kind: str, network: Any, variables: Any) -> int:
    """The smallest side of images that the network takes; of a transformer, the only one."""
    if kind == "resnet12":
        return 2 ** len(network.channels)
    if kind == "convnext":
        return 4 * 2 ** (len(network.depths) - 1)
    if kind == "resnet18":
        return 1
    name = "positional_embedding" if kind == "clip_vit" else "pos_embed"
    patches = np.shape(variables["params"][name])[-2] - 1
    return round(patches**0.5) * network.patch_size


def check_sides(
    kind: str, sizes: Mapping[str, Any], variables: Any, height: int, width: int
) -> None:
    """Refuses images that the network cannot take.

    Raises:
      UserError: they are too small, or not of the one size that a transformer takes.
    """
    side = smallest_side(kind, module(kind, sizes), variables)
    only = kind in ("vit", "clip_vit")
    if min(height, width) < side or (only and (height, width) != (side, side)):
        takes = "images of" if only else "images of at least"
        raise UserError(
            f"the image encoder {kind} takes {takes} {side} x {side} pixels, not {height} x "
            f"{width}: set its side to {side}{'' if only else ' or more'}."
        )


def _without(head: str | None) -> Any:
    """An interceptor that gives the head's input for its output."""

    def skip(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        inner = context.module
        if inner.name == head and isinstance(inner, nn.Dense) and context.method_name == "__call__":
            return args[0]
        return call(*args, **kwargs)

    return skip


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    found = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join(str(entry.key) for entry in path): np.shape(leaf) for path, leaf in found}
