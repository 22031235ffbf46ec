"""The UNet of velocities, alone, with classes, and with the map of a data set beside its input.

Sources: Dhariwal and Nichol 2021 (the UNet), Rombach et al. 2022 (channels concatenated), Soro et
al. 2025 (the data set's map: features as rows of samples and classes, two linear layers).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.make.blocks import (
    Case,
    Made,
    Shapes,
    State,
    arrays,
    conv,
    drawn,
    group_norm,
    kernel,
    linear,
    norm,
    swish,
    tensors,
    time_embedding,
    unet_attn,
    unet_attn_shapes,
    unet_res,
    unet_res_shapes,
    upsample,
)

Config = dict[str, Any]
Layer = tuple[str, str, int, int]  # kind, name, inputs, outputs


def _plan(
    c: Config, factors: list[int]
) -> tuple[list[list[Layer]], list[Layer], list[list[Layer]]]:
    """Blocks of layers: those on the way down, the middle, those on the way up."""
    mult, depth = c["channel_mult"], c["num_res_blocks"]
    widths = [m * c["width"] for m in mult]
    down: list[list[Layer]] = []
    width, factor, skips = widths[0], 1, [widths[0]]
    for level, target in enumerate(widths):
        for _ in range(depth):
            name = f"input_blocks.{len(skips)}"
            block: list[Layer] = [("res", f"{name}.0", width, target)]
            width = target
            if factor in factors:
                block.append(("attn", f"{name}.1", width, width))
            down.append(block)
            skips.append(width)
        if level < len(widths) - 1:
            name = f"input_blocks.{len(skips)}.0"
            down.append([("res_down" if c.get("resblock_updown") else "down", name, width, width)])
            skips.append(width)
            factor *= 2
    kinds = ("res", "attn", "res")
    middle = [(kind, f"middle_block.{i}", width, width) for i, kind in enumerate(kinds)]
    up: list[list[Layer]] = []
    for level in range(len(widths) - 1, -1, -1):
        for j in range(depth + 1):
            name = f"output_blocks.{len(up)}"
            block = [("res", f"{name}.0", width + skips.pop(), widths[level])]
            width = widths[level]
            if factor in factors:
                block.append(("attn", f"{name}.1", width, width))
            if level > 0 and j == depth:
                kind = "res_up" if c.get("resblock_updown") else "up"
                block.append((kind, f"{name}.{len(block)}", width, width))
                factor //= 2
            up.append(block)
    return down, middle, up


def _shapes(c: Config, factors: list[int], inputs: int, outputs: int) -> Shapes:
    embedded, width = 4 * c["width"], c["channel_mult"][0] * c["width"]
    found = kernel("time_embed.0", embedded, c["width"]) | kernel(
        "time_embed.2", embedded, embedded
    )
    if c.get("class_cond"):
        found["label_emb.weight"] = [c["num_classes"], embedded]
    found |= kernel("input_blocks.0.0", width, inputs, 3, 3)
    down, middle, up = _plan(c, factors)
    for kind, name, before, after in [layer for block in (*down, middle, *up) for layer in block]:
        if kind.startswith("res"):
            scaled = bool(c.get("use_scale_shift_norm"))
            found |= unet_res_shapes(name, before, after, embedded, scaled)
        elif kind == "attn":
            found |= unet_attn_shapes(name, before)
        else:
            found |= kernel(f"{name}.{'op' if kind == 'down' else 'conv'}", after, before, 3, 3)
    return found | norm("out.0", width) | kernel("out.2", outputs, width, 3, 3)


def _run(
    p: State, c: Config, factors: list[int], x: Tensor, t: Tensor, label: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The velocity, and the embedding of the time before and behind its two layers."""
    sinusoids = time_embedding(t.double(), c["width"])
    timed = linear(p, "time_embed.2", swish(linear(p, "time_embed.0", sinusoids)))
    embedding = timed if label is None else timed + p["label_emb.weight"][label]

    def through(block: list[Layer], x: Tensor) -> Tensor:
        for kind, name, _, width in block:
            if kind.startswith("res"):
                x = unet_res(p, name, x, embedding, kind.removeprefix("res").strip("_") or "none")
            elif kind == "attn":
                heads = width // c["num_head_channels"] if "num_head_channels" in c else 2
                x = unet_attn(p, name, x, heads, bool(c.get("use_new_attention_order")))
            elif kind == "down":
                x = conv(p, f"{name}.op", x, stride=2)
            else:
                x = conv(p, f"{name}.conv", upsample(x))
        return x

    down, middle, up = _plan(c, factors)
    x = conv(p, "input_blocks.0.0", x)
    skips = [x]
    for block in down:
        x = through(block, x)
        skips.append(x)
    x = through(middle, x)
    for block in up:
        x = through(block, torch.cat([x, skips.pop()], 1))
    out = conv(p, "out.2", swish(group_norm(p, "out.0", x, 32, 1e-5)))
    return out, sinusoids, timed


def _velocity_case(seed: int, factors: list[int], **c: Any) -> Case:
    c["num_channels"] = c["width"] = 32
    channels = c["dim"][0]

    def make(state: dict[str, np.ndarray]) -> Made:
        p, rng = tensors(state), np.random.RandomState(seed)
        t = torch.tensor([0, 0.375, 1.0])[: c["B"]].double()
        x0, x1 = drawn(rng, c["B"], *c["dim"]), drawn(rng, c["B"], *c["dim"])
        blend = t[:, None, None, None]
        x = ((1 - blend) * x0 + blend * x1).float().double()
        u = (x1 - x0).float().double()
        given = {"x": x, "t": t, "u": u, "x0": x0}
        label = torch.tensor([3, 1, 4])[: c["B"]] if c.get("class_cond") else None
        v, sinusoids, timed = _run(p, c, factors, x, t, label)
        found = {"v": v, "t_sin": sinusoids, "t_emb": timed, "loss_mse": ((v - u) ** 2).mean()}
        found["v_scalar_t_half"] = _run(p, c, factors, x, 0 * t + 0.5, label)[0]
        state_ = x0
        for step in range(4):
            state_ = state_ + _run(p, c, factors, state_, 0 * t + step / 4, label)[0] / 4
        found["euler4"] = state_
        inputs = arrays(**given) | ({} if label is None else {"y": label.numpy()})
        return inputs, arrays(**found), c

    return Case(_shapes(c, factors, channels, channels), seed, make)


_UNET: Config = {"attention_resolutions": [2], "channel_mult": [1, 1], "image_size": 8}
_UNET |= {"in_channels": 2, "model_channels": 32, "num_heads": 2, "num_res_blocks": 1}
_UNET |= {"out_channels": 1, "resblock_updown": True, "use_scale_shift_norm": True, "width": 32}
_MAP: Config = {"embed_dim": 16, "in_ch": 1, "input_size": 8, "num_classes": 4, "num_samples": 3}
_MAP |= {"out_dim": 4}


def _conditioned_shapes() -> Shapes:
    found = {f"diffusion_model.{k}": v for k, v in _shapes(_UNET, [2], 2, 1).items()}
    found |= kernel("cond_stage_model.dense1", 4, 12)
    return found | kernel("cond_stage_model.dense2", 64, 4 * 16)


def _conditioned(state: dict[str, np.ndarray]) -> Made:
    unet, encoder = tensors(state, "diffusion_model."), tensors(state, "cond_stage_model.")
    rng = np.random.RandomState(21)
    x, noise, t = drawn(rng, 2, 1, 8, 8), drawn(rng, 2, 1, 8, 8), torch.tensor([17.0, 801.0])
    features = drawn(rng, 2, 4, 3, 16)
    # Inputs are samples outside and classes inside, a row for each feature.
    rows = features.permute(0, 3, 2, 1).flatten(2)
    h = functional.leaky_relu(linear(encoder, "dense1", rows), 0.01).flatten(1)
    cond = linear(encoder, "dense2", h).reshape(2, 1, 8, 8)
    out, sinusoids, timed = _run(unet, _UNET, [2], torch.cat([x, cond], 1), t)
    found = {"cond": cond, "t_sin": sinusoids, "t_emb": timed, "eps_pred": out}
    found["loss_mse"] = ((out - noise) ** 2).mean()
    given = {"x": x, "t": t, "features": features, "noise": noise}
    return arrays(**given), arrays(**found), {"unet": _UNET, "cond": _MAP}


FIXTURES = {
    "unet": _velocity_case(
        31, [2], B=3, dim=[4, 4, 4], attention_resolutions="2", channel_mult=[1, 2],
        num_heads=2, num_res_blocks=1,
    ),
    "unet_class": _velocity_case(
        32, [1, 2], B=2, dim=[2, 8, 8], attention_resolutions="8,4", channel_mult=[1, 1],
        class_cond=True, num_classes=5, num_head_channels=16, num_res_blocks=1,
        use_new_attention_order=True, use_scale_shift_norm=True,
    ),
    "unet_cond": Case(_conditioned_shapes(), 22, _conditioned),
}  # fmt: skip
