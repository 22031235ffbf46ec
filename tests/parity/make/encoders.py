"""The weight autoencoder and CAML.

Sources: Rombach et al. 2022 (autoencoder: encoder, decoder, diagonal Gaussian with log variances
clipped to -30 .. 20); Soro et al. 2025 (linear layers around it for weights, leaky ReLU of slope
0.01 behind the first); Fifty et al. 2024 and Dosovitskiy et al. 2021 (CAML: a pre-norm encoder
with exact GELU and LayerNorm epsilon 1e-6 over [query + unknown, support + label ...]).
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
    attend,
    conv,
    drawn,
    group_norm,
    kernel,
    layer_norm,
    linear,
    norm,
    swish,
    tensors,
    upsample,
    vae_attn,
    vae_attn_shapes,
    vae_down,
    vae_res,
    vae_res_shapes,
)

Config = dict[str, Any]


def _plan(c: Config) -> tuple[list[tuple[str, str, int, int]], list[tuple[str, str, int, int]]]:
    """Layers of encoder and decoder in order, as (kind, name, inputs, outputs)."""
    down: list[tuple[str, str, int, int]] = []
    width, side, last = c["ch"], c["resolution"], len(c["ch_mult"]) - 1
    for level, mult in enumerate(c["ch_mult"]):
        for j in range(c["num_res_blocks"]):
            down.append(("res", f"encoder.down.{level}.block.{j}", width, c["ch"] * mult))
            width = c["ch"] * mult
            if side in c["attn_resolutions"]:
                down.append(("attn", f"encoder.down.{level}.attn.{j}", width, width))
        if level < last:
            down.append(("down", f"encoder.down.{level}.downsample.conv", width, width))
            side //= 2

    def middle(name: str) -> list[tuple[str, str, int, int]]:
        parts = (("res", "block_1"), ("attn", "attn_1"), ("res", "block_2"))
        return [(kind, f"{name}.mid.{part}", width, width) for kind, part in parts]

    down += middle("encoder")
    up = middle("decoder")
    for level in range(last, -1, -1):
        for j in range(c["num_res_blocks"] + 1):
            target = c["ch"] * c["ch_mult"][level]
            up.append(("res", f"decoder.up.{level}.block.{j}", width, target))
            width = target
            if side in c["attn_resolutions"]:
                up.append(("attn", f"decoder.up.{level}.attn.{j}", width, width))
        if level > 0:
            up.append(("up", f"decoder.up.{level}.upsample.conv", width, width))
            side *= 2
    return down, up


def _autoencoder_shapes(c: Config) -> Shapes:
    down, up = _plan(c)
    top = c["ch"] * c["ch_mult"][-1]
    found = kernel("encoder.conv_in", c["ch"], c["in_channels"], 3, 3)
    found |= norm("encoder.norm_out", top)
    found |= kernel("encoder.conv_out", 2 * c["z_channels"], top, 3, 3)
    found |= kernel("quant_conv", 2 * c["embed_dim"], 2 * c["z_channels"], 1, 1)
    found |= kernel("post_quant_conv", c["z_channels"], c["embed_dim"], 1, 1)
    found |= kernel("decoder.conv_in", top, c["z_channels"], 3, 3)
    for kind, name, inputs, outputs in down + up:
        if kind == "res":
            found |= vae_res_shapes(name, inputs, outputs)
        elif kind == "attn":
            found |= vae_attn_shapes(name, inputs)
        else:
            found |= kernel(name, outputs, inputs, 3, 3)
    found |= norm("decoder.norm_out", c["ch"] * c["ch_mult"][0])
    found |= kernel("decoder.conv_out", c["out_ch"], c["ch"] * c["ch_mult"][0], 3, 3)
    if "in_dim" in c:
        found |= kernel("encoder.fc_in", c["fdim"], c["in_dim"])
        found |= kernel("decoder.fc_out", c["in_dim"], c["fdim"])
    return found


def _autoencoder(c: Config, state: dict[str, np.ndarray]) -> Made:
    p, rng = tensors(state), np.random.RandomState(c["seed"])
    down, up = _plan(c)
    groups, side = c["num_groups"], c["resolution"]

    def through(layers: list[tuple[str, str, int, int]], x: Tensor) -> Tensor:
        for kind, name, _, _ in layers:
            if kind == "res":
                x = vae_res(p, name, x, groups)
            elif kind == "attn":
                x = vae_attn(p, name, x, groups)
            else:
                x = vae_down(p, name, x) if kind == "down" else conv(p, name, upsample(x))
        return x

    def mapped(w: Tensor) -> Tensor:
        if "in_dim" not in c:
            return w
        rows = linear(p, "encoder.fc_in", w.reshape(len(w), c["my_channels"], -1))
        return functional.leaky_relu(rows, 0.01).reshape(len(w), c["in_channels"], side, side)

    def encoded(w: Tensor) -> Tensor:
        h = through(down, conv(p, "encoder.conv_in", mapped(w)))
        return conv(
            p, "encoder.conv_out", swish(group_norm(p, "encoder.norm_out", h, groups, 1e-6))
        )

    def decoded(z: Tensor) -> Tensor:
        h = through(up, conv(p, "decoder.conv_in", conv(p, "post_quant_conv", z)))
        h = conv(p, "decoder.conv_out", swish(group_norm(p, "decoder.norm_out", h, groups, 1e-6)))
        if "in_dim" not in c:
            return h
        rows = linear(p, "decoder.fc_out", h.reshape(len(z), c["my_channels"], -1))
        return rows.reshape(len(z), -1)

    def posterior(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = moments.chunk(2, 1)
        logvar = logvar.clamp(-30, 20)
        return mean, logvar, 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3))

    batch = c["B"]
    shape = (c["my_channels"] * c["in_dim"],) if "in_dim" in c else (c["in_channels"], side, side)
    w = drawn(rng, batch, *shape)
    h = encoded(w)
    moments = conv(p, "quant_conv", h)
    mean, logvar, kl = posterior(moments)
    eps = drawn(rng, *mean.shape)
    z = mean + (logvar / 2).exp() * eps
    w_hat = decoded(z)
    found = {"moments": moments, "z": z, "decoded": w_hat, "kl_per_sample": kl}
    if "in_dim" not in c:
        return arrays(x=w, eps=eps), arrays(**found), c
    xi_in, xi_lat = 0.01 * drawn(rng, *w.shape), 0.5 * drawn(rng, *z.shape)
    xi_in = xi_in.float().double()
    extreme = 40 * drawn(rng, 2, 2 * c["embed_dim"], 1, 1)
    extreme = extreme.float().double()
    moments_noisy = conv(p, "quant_conv", encoded(w + xi_in))
    mean_noisy, logvar_noisy, kl_noisy = posterior(moments_noisy)
    z_noisy = mean_noisy + (logvar_noisy / 2).exp() * eps + xi_lat
    decoded_noisy = decoded(z_noisy)
    _, logvar_extreme, kl_extreme = posterior(extreme)
    l1_sum, mse = (w - w_hat).abs().sum() / batch, ((w - w_hat) ** 2).mean()
    weighted = c["kl_weight"] * kl.mean()
    found |= {
        "feature_map": mapped(w),
        "h": h,
        "mean": mean,
        "logvar": logvar,
        "std": (logvar / 2).exp(),
        "decoded_mode": decoded(mean),
        "kl_mean": kl.mean(),
        "rec_l1_sum": l1_sum,
        "rec_mse_mean": mse,
        "loss_l1_kl": l1_sum + weighted,
        "loss_d2nwg": l1_sum + 1000 * mse + weighted,
        "loss_mse_kl": mse + weighted,
        "moments_noisy": moments_noisy,
        "z_noisy": z_noisy,
        "decoded_noisy": decoded_noisy,
        "loss_flown": ((decoded_noisy - w) ** 2).mean() + c["kl_weight"] * kl_noisy.mean(),
        "logvar_extreme": logvar_extreme,
        "kl_extreme": kl_extreme,
    }
    given = {"w": w, "eps": eps, "xi_in": xi_in, "xi_lat": xi_lat, "moments_extreme": extreme}
    return arrays(**given), arrays(**found), c


def _autoencoder_case(**c: Any) -> Case:
    return Case(_autoencoder_shapes(c), c["seed"], lambda state: _autoencoder(c, state))


_CAML: Config = {"image_dim": 8, "label_dim": 8, "num_layers": 2, "num_heads": 4, "mlp_dim": 12}
_CAML |= {"num_classes": 5, "layernorm_eps": 1e-6}


def _caml_shapes(c: Config) -> Shapes:
    width = c["image_dim"] + c["label_dim"]
    found: Shapes = {"unk_emb": [1, 1, c["label_dim"]], "elmes_scale": [1]}
    found |= {"label_elmes": [c["num_classes"], c["label_dim"]]}
    found |= kernel("output_proj", c["num_classes"], width, bias=False)
    found |= norm("encoder.ln", width)
    for i in range(c["num_layers"]):
        name = f"encoder.layers.encoder_layer_{i}"
        found |= norm(f"{name}.ln_1", width) | norm(f"{name}.ln_2", width)
        found[f"{name}.self_attention.in_proj_weight"] = [3 * width, width]
        found[f"{name}.self_attention.in_proj_bias"] = [3 * width]
        found |= kernel(f"{name}.self_attention.out_proj", width, width)
        found |= kernel(f"{name}.mlp.0", c["mlp_dim"], width)
        found |= kernel(f"{name}.mlp.3", width, c["mlp_dim"])
    return {f"transformer_encoder.{k}": shape for k, shape in found.items()}


def _caml_block(p: State, name: str, x: Tensor, heads: int) -> Tensor:
    y = layer_norm(p, f"{name}.ln_1", x)
    at = f"{name}.self_attention"
    qkv = y @ p[f"{at}.in_proj_weight"].T + p[f"{at}.in_proj_bias"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    x = x + linear(p, f"{at}.out_proj", attend(q, k, v).transpose(1, 2).flatten(2))
    y = functional.gelu(linear(p, f"{name}.mlp.0", layer_norm(p, f"{name}.ln_2", x)))
    return x + linear(p, f"{name}.mlp.3", y)


def _caml(state: dict[str, np.ndarray]) -> Made:
    c, p = _CAML, tensors(state, "transformer_encoder.")
    rng = np.random.RandomState(5)

    def run(features: Tensor, labels: Tensor) -> dict[str, Any]:
        support, queries = features[: len(labels)], features[len(labels) :]
        named = torch.cat([support, p["elmes_scale"] * p["label_elmes"][labels]], 1)
        asked = torch.cat([queries, p["unk_emb"][0].expand(len(queries), -1)], 1)
        x = torch.cat([asked[:, None], named.expand(len(queries), -1, -1)], 1)
        found = {"seq_in": x}
        for i in range(c["num_layers"]):
            x = _caml_block(p, f"encoder.layers.encoder_layer_{i}", x, c["num_heads"])
            found[f"layer_{i}"] = x
        x = layer_norm(p, "encoder.ln", x)
        return found | {
            "seq_out": x,
            "query_embeddings": x[:, 0],
            "logits": linear(p, "output_proj", x[:, 0]),
        }

    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}
    way, queries = c["num_classes"], 2
    features = drawn(rng, way * (1 + queries), c["image_dim"])
    three = drawn(rng, 3 * 2 + 3, c["image_dim"])
    order = torch.tensor([3, 1, 4, 0, 2])
    cases = {
        "": (features, torch.arange(way)),
        "relabel.": (features, order),
        "shuffled.": (torch.cat([features[order], features[way:]]), order),
        "way3.": (three, torch.arange(3).repeat_interleave(2)),
    }
    for case, (given, labels) in cases.items():
        found = run(given, labels)
        inputs |= {f"{case}support_labels": labels.numpy()} | arrays(**{f"{case}features": given})
        kept = ("logits", "query_embeddings")
        outputs |= arrays(**{f"{case}{name}": found[name] for name in kept})
        if case in ("", "relabel."):
            # Queries come class by class; class c is called labels[c].
            means = found["query_embeddings"].reshape(way, queries, -1).mean(1)
            outputs |= arrays(**{f"{case}class_embeddings": means})
            true = torch.arange(way).repeat_interleave(queries)
            inputs[f"{case}query_labels"] = labels[true].numpy()
        if case == "":
            names = ("seq_in", "seq_out", *(f"layer_{i}" for i in range(c["num_layers"])))
            outputs |= arrays(**{name: found[name][:2] for name in names})
    inputs["relabel.permutation"] = order.numpy()
    return inputs, outputs, c


FIXTURES = {
    "autoencoder_kl": _autoencoder_case(
        B=3, in_dim=45, my_channels=1, fdim=64, resolution=8, in_channels=1, out_ch=1, ch=8,
        ch_mult=[1, 2], num_res_blocks=1, attn_resolutions=[4], z_channels=3, embed_dim=2,
        num_groups=2, kl_weight=0.01, seed=11,
    ),
    "autoencoder_kl_chunks": _autoencoder_case(
        B=2, in_dim=20, my_channels=4, fdim=32, resolution=8, in_channels=2, out_ch=2, ch=8,
        ch_mult=[1, 1, 2], num_res_blocks=2, attn_resolutions=[8], z_channels=4, embed_dim=4,
        num_groups=2, kl_weight=1e-6, seed=12,
    ),
    "autoencoder_kl_ldm": _autoencoder_case(
        B=2, resolution=8, in_channels=1, out_ch=1, ch=32, ch_mult=[1, 1], num_res_blocks=1,
        attn_resolutions=[8], z_channels=4, embed_dim=4, num_groups=32, seed=13,
    ),
    "caml": Case(_caml_shapes(_CAML), 52, _caml),
}  # fmt: skip
