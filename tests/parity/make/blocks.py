"""Building blocks of networks in plain PyTorch functions, and the fixture `layers` of single ones.

A block reads its parameters from a state dict by PyTorch's names below its own. Maps are NCHW,
sequences (batch, channels, length), everything float64.
Sources: Rombach et al. 2022 (autoencoder's blocks), Dhariwal and Nichol 2021 (UNet's), Vaswani et
al. 2017 (time embedding: cosines first, then sines, frequencies 10000^(-i/half)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Shapes = dict[str, list[int]]
State = dict[str, Tensor]
Made = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A fixture: its parameters' shapes and seed, what makes (inputs, outputs, config), and
    buffers whose values are not drawn."""

    shapes: Shapes
    seed: int
    make: Callable[[dict[str, np.ndarray]], Made]
    fixed: dict[str, np.ndarray] = field(default_factory=dict)


def tensors(arrays: dict[str, np.ndarray], prefix: str = "") -> State:
    """A state dict in float64, of the names below a prefix and without it."""
    return {
        name.removeprefix(prefix): torch.from_numpy(np.asarray(value, np.float64))
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def arrays(**values: Tensor) -> dict[str, np.ndarray]:
    """Results as float32."""
    return {name: value.detach().numpy().astype(np.float32) for name, value in values.items()}


def drawn(rng: np.random.RandomState, *shape: int) -> Tensor:
    """Normal numbers that float32 holds."""
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32).astype(np.float64))


def kernel(name: str, *shape: int, bias: bool = True) -> Shapes:
    """Shapes of a convolution or linear layer."""
    return {f"{name}.weight": list(shape)} | ({f"{name}.bias": [shape[0]]} if bias else {})


def norm(name: str, width: int) -> Shapes:
    """Shapes of a normalisation."""
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def conv(p: State, name: str, x: Tensor, **options: Any) -> Tensor:
    """A convolution; kernels above 1 get padding 1 unless told otherwise."""
    weight = p[f"{name}.weight"]
    options.setdefault("padding", 1 if weight.shape[-1] > 1 else 0)
    apply = functional.conv1d if weight.ndim == 3 else functional.conv2d
    return apply(x, weight, p.get(f"{name}.bias"), **options)


def linear(p: State, name: str, x: Tensor) -> Tensor:
    """A linear layer."""
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", torch.zeros(()))


def group_norm(p: State, name: str, x: Tensor, groups: int, eps: float) -> Tensor:
    """Mean 0 and variance 1 in each group of channels."""
    y = x.reshape(len(x), groups, -1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return _affine(p, name, y.reshape(x.shape))


def batch_norm(
    p: State, name: str, x: Tensor, train: bool = False, eps: float = 1e-5, momentum: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """The normalised maps, and the running statistics after a pass in training."""
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    axes, new = (0, 2, 3), {}
    if train:
        count = x.numel() / x.shape[1]
        own, own_var = x.mean(axes), x.var(axes, unbiased=False)
        new[f"{name}.running_mean"] = (1 - momentum) * mean + momentum * own
        unbiased = own_var * count / (count - 1)
        new[f"{name}.running_var"] = (1 - momentum) * var + momentum * unbiased
        mean, var = own, own_var
    y = (x - mean[:, None, None]) / (var[:, None, None] + eps).sqrt()
    return _affine(p, name, y), new


def layer_norm(p: State, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean 0 and variance 1 over the last axis."""
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return y * p[f"{name}.weight"] + p[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(width)) v over the last two axes, (..., tokens, width)."""
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v


def upsample(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def swish(x: Tensor) -> Tensor:
    """x times its sigmoid."""
    return x * torch.sigmoid(x)


def vae_res_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    """Of `vae_res`."""
    found = norm(f"{name}.norm1", inputs) | kernel(f"{name}.conv1", outputs, inputs, 3, 3)
    found |= norm(f"{name}.norm2", outputs) | kernel(f"{name}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        found |= kernel(f"{name}.nin_shortcut", outputs, inputs, 1, 1)
    return found


def vae_res(p: State, name: str, x: Tensor, groups: int) -> Tensor:
    """Norm, swish, convolution, twice, and the input added."""
    h = conv(p, f"{name}.conv1", swish(group_norm(p, f"{name}.norm1", x, groups, 1e-6)))
    h = conv(p, f"{name}.conv2", swish(group_norm(p, f"{name}.norm2", h, groups, 1e-6)))
    return h + (x if x.shape == h.shape else conv(p, f"{name}.nin_shortcut", x))


def vae_attn_shapes(name: str, width: int) -> Shapes:
    """Of `vae_attn`."""
    found = norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        found |= kernel(f"{name}.{part}", width, width, 1, 1)
    return found


def vae_attn(p: State, name: str, x: Tensor, groups: int) -> Tensor:
    """One head over all pixels, and the input added."""
    h = group_norm(p, f"{name}.norm", x, groups, 1e-6)
    q, k, v = (conv(p, f"{name}.{part}", h).flatten(2).transpose(1, 2) for part in "qkv")
    return x + conv(p, f"{name}.proj_out", attend(q, k, v).transpose(1, 2).reshape(x.shape))


def vae_down(p: State, name: str, x: Tensor) -> Tensor:
    """A convolution of stride 2, padded below and to the right alone."""
    return conv(p, name, functional.pad(x, (0, 1, 0, 1)), stride=2, padding=0)


def unet_res_shapes(
    name: str, inputs: int, outputs: int, embedded: int, scale_shift: bool
) -> Shapes:
    """Of `unet_res`."""
    found = norm(f"{name}.in_layers.0", inputs)
    found |= kernel(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    found |= kernel(f"{name}.emb_layers.1", outputs * (1 + scale_shift), embedded)
    found |= norm(f"{name}.out_layers.0", outputs)
    found |= kernel(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        found |= kernel(f"{name}.skip_connection", outputs, inputs, 1, 1)
    return found


def unet_res(p: State, name: str, x: Tensor, embedding: Tensor, resample: str = "none") -> Tensor:
    """A block that an embedding shifts, or scales and shifts behind its second norm."""
    h = swish(group_norm(p, f"{name}.in_layers.0", x, 32, 1e-5))
    change = {"none": lambda y: y, "up": upsample, "down": lambda y: functional.avg_pool2d(y, 2)}
    h, x = change[resample](h), change[resample](x)
    h = conv(p, f"{name}.in_layers.2", h)
    e = linear(p, f"{name}.emb_layers.1", swish(embedding))[:, :, None, None]
    if e.shape[1] == h.shape[1]:
        h = group_norm(p, f"{name}.out_layers.0", h + e, 32, 1e-5)
    else:
        scale, shift = e.chunk(2, 1)
        h = group_norm(p, f"{name}.out_layers.0", h, 32, 1e-5) * (1 + scale) + shift
    h = conv(p, f"{name}.out_layers.3", swish(h))
    skip = f"{name}.skip_connection"
    return h + (conv(p, skip, x) if f"{skip}.weight" in p else x)


def unet_attn_shapes(name: str, width: int) -> Shapes:
    """Of `unet_attn`."""
    found = norm(f"{name}.norm", width) | kernel(f"{name}.qkv", 3 * width, width, 1)
    return found | kernel(f"{name}.proj_out", width, width, 1)


def unet_attn(p: State, name: str, x: Tensor, heads: int, new_order: bool = False) -> Tensor:
    """Several heads over all pixels, and the input added; rows of qkv are head-major, or (new
    order) those of q, k and v each together."""
    y = group_norm(p, f"{name}.norm", x, 32, 1e-5).flatten(2)
    qkv = conv(p, f"{name}.qkv", y)
    order = (3, heads, -1) if new_order else (heads, 3, -1)
    qkv = qkv.reshape(len(x), *order, qkv.shape[-1]).transpose(-1, -2)
    q, k, v = qkv.unbind(1 if new_order else 2)
    out = attend(q, k, v).transpose(-1, -2).reshape(y.shape)
    return x + conv(p, f"{name}.proj_out", out).reshape(x.shape)


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines and sines of t, (B, width); an odd width ends with 0."""
    half = width // 2
    angles = t[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    found = torch.cat([angles.cos(), angles.sin()], 1)
    return functional.pad(found, (0, width % 2))


_AFFINE = ("weight", "bias")


def _affine(p: State, name: str, x: Tensor) -> Tensor:
    scale, bias = (p[f"{name}.{part}"].reshape(-1, *(1,) * (x.ndim - 2)) for part in _AFFINE)
    return x * scale + bias


_LAYERS: Shapes = (
    norm("vae_norm", 8)
    | kernel("vae_down.conv", 8, 8, 3, 3)
    | kernel("vae_up.conv", 8, 8, 3, 3)
    | vae_attn_shapes("vae_attn", 8)
    | vae_res_shapes("vae_res", 8, 16)
    | norm("unet_norm", 32)
    | kernel("unet_down.op", 32, 32, 3, 3)
    | kernel("unet_up.conv", 32, 32, 3, 3)
    | unet_attn_shapes("unet_attn_legacy", 32)
    | unet_attn_shapes("unet_attn_new", 32)
    | unet_res_shapes("unet_res", 32, 32, 24, False)
    | unet_res_shapes("unet_res_ss", 32, 64, 24, True)
    | unet_res_shapes("unet_res_up", 32, 32, 24, True)
    | unet_res_shapes("unet_res_down", 32, 32, 24, False)
    | {"convT1d.weight": [3, 4, 5], "convT1d.bias": [4]}
    | {"convT1d_k3.weight": [2, 2, 3], "convT1d_k3.bias": [2]}
)


def _layers(state: dict[str, np.ndarray]) -> Made:
    p, rng = tensors(state), np.random.RandomState(3)
    vae, unet, emb = drawn(rng, 1, 8, 4, 4), drawn(rng, 1, 32, 4, 4), drawn(rng, 1, 24)
    x1d, x1d2 = drawn(rng, 2, 3, 7), drawn(rng, 2, 2, 7)
    times = {"frac": torch.tensor([0, 0.125, 0.375, 0.5, 1.0]), "int": torch.arange(0, 1000.0, 200)}
    # Small inputs show epsilon; what is computed on is what float32 holds.
    tiny = {
        f"{name}_tiny": (x * 1e-3).float().double()
        for name, x in (("vae_x", vae), ("unet_x", unet), ("x1d", x1d))
    }
    given = {"vae_x": vae, "unet_x": unet, "emb": emb, "x1d": x1d, "x1d2": x1d2} | tiny

    def instance(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, unbiased=False) + 1e-5
        ).sqrt()

    def transposed(name: str, x: Tensor) -> Tensor:
        weight = p[f"{name}.weight"]
        return functional.conv_transpose1d(x, weight, p[f"{name}.bias"], stride=weight.shape[-1])

    found = {
        "vae_norm": group_norm(p, "vae_norm", vae, 2, 1e-6),
        "vae_norm_tiny": group_norm(p, "vae_norm", tiny["vae_x_tiny"], 2, 1e-6),
        "vae_down": vae_down(p, "vae_down.conv", vae),
        "vae_up": conv(p, "vae_up.conv", upsample(vae)),
        "vae_attn": vae_attn(p, "vae_attn", vae, 2),
        "vae_res": vae_res(p, "vae_res", vae, 2),
        "unet_norm": group_norm(p, "unet_norm", unet, 32, 1e-5),
        "unet_norm_tiny": group_norm(p, "unet_norm", tiny["unet_x_tiny"], 32, 1e-5),
        "unet_down": conv(p, "unet_down.op", unet, stride=2),
        "unet_up": conv(p, "unet_up.conv", upsample(unet)),
        "unet_attn_legacy": unet_attn(p, "unet_attn_legacy", unet, 2),
        "unet_attn_new": unet_attn(p, "unet_attn_new", unet, 2, new_order=True),
        "unet_res": unet_res(p, "unet_res", unet, emb),
        "unet_res_ss": unet_res(p, "unet_res_ss", unet, emb),
        "unet_res_up": unet_res(p, "unet_res_up", unet, emb, "up"),
        "unet_res_down": unet_res(p, "unet_res_down", unet, emb, "down"),
        "inorm1d": instance(x1d),
        "inorm1d_tiny": instance(tiny["x1d_tiny"]),
        "convT1d": transposed("convT1d", x1d),
        "convT1d_k3": transposed("convT1d_k3", x1d2),
    }
    for kind, t in times.items():
        for width in (32, 33):
            found[f"timestep_embedding_{kind}_{width}"] = time_embedding(t.double(), width)
    config = {"vae_channels": 8, "unet_channels": 32, "heads": 2, "emb_channels": 24}
    return arrays(**given, **{f"t_{k}": t for k, t in times.items()}), arrays(**found), config


FIXTURES = {"layers": Case(_LAYERS, 71, _layers)}
