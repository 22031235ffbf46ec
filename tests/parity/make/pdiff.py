"""p-diff's autoencoder and noise predictor, from the published description (Wang et al. 2024).

Names are those of the code of February 2024. Normalisations are over the length, of each sample
and channel, without parameters, epsilon 1e-5; leaky ReLUs have slope 0.01.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.make.blocks import Case, Made, Shapes, arrays, conv, drawn, kernel, tensors
from tests.parity.make.encoders import Config


def _norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()


def _active(x: Tensor) -> Tensor:
    return _norm(functional.leaky_relu(x, 0.01))


def _pairs(channels: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(channels))


def _autoencoder_shapes(c: Config) -> Shapes:
    k, found = c["kernel_size"], {}
    for i, (before, out) in enumerate(_pairs([1, *c["enc_channels"]])):
        inner = c["enc_channels"][0] if i == 0 else before
        found |= kernel(f"encoder.encoder.{i}.2", inner, before, k)
        found |= kernel(f"encoder.encoder.{i}.5", out, inner, k)
    for i, (before, out) in enumerate(_pairs([*c["dec_channels"], 1])):
        found |= kernel(f"decoder.decoder.{i}.2", before, before, k)
        found |= kernel(f"decoder.decoder.{i}.5", out, before, k)
    return found


def _autoencoder(c: Config, state: dict[str, np.ndarray]) -> Made:
    p, rng, fold = tensors(state), np.random.RandomState(c["seed"]), c["fold_rate"]
    size, block = c["in_dim"], fold ** len(c["enc_channels"])

    def encoded(w: Tensor) -> Tensor:
        x = functional.pad(w, (0, (size // block + 1) * block - size))[:, None]
        for i in range(len(c["enc_channels"])):
            x = conv(p, f"encoder.encoder.{i}.2", _active(x) if i else _norm(x))
            x = conv(p, f"encoder.encoder.{i}.5", _active(x), stride=fold, padding=0)
        return torch.tanh(x)

    def decoded(z: Tensor) -> Tensor:
        last = len(c["dec_channels"]) - 1
        for i in range(last + 1):
            name = f"decoder.decoder.{i}.2"
            weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
            z = functional.conv_transpose1d(_active(z), weight, bias, stride=fold)
            padding = fold if i == last else fold - 1
            z = conv(p, f"decoder.decoder.{i}.5", _active(z), padding=padding)
        return z

    w, noise_in = drawn(rng, c["B"], size), drawn(rng, c["B"], size)
    latent = encoded(w)
    noise_lat = drawn(rng, *latent.shape)
    raw = decoded(latent)
    share_in, share = c["input_noise_factor"], c["latent_noise_factor"]
    noisy = encoded((1 - share_in) * w + share_in * noise_in)
    noisy = ((1 - share) * noisy + share * noise_lat).clamp(-1, 1)
    found = {"latent": latent, "decoder_raw": raw, "decoded": raw[:, 0, :size]}
    found |= {"latent_noisy": noisy, "decoded_noisy": decoded(noisy)[:, 0, :size]}
    found["loss_mse"] = ((found["decoded_noisy"] - w) ** 2).mean()
    found["loss_mse_clean"] = ((found["decoded"] - w) ** 2).mean()
    return arrays(w=w, noise_in=noise_in, noise_lat=noise_lat), arrays(**found), c


def _autoencoder_case(param_seed: int, **c: object) -> Case:
    return Case(_autoencoder_shapes(c), param_seed, lambda state: _autoencoder(c, state))


def _denoiser_shapes(c: Config) -> Shapes:
    found: Shapes = {"time_encode.weight": [c["time_steps"], c["in_dim"]]}
    for i, (before, width) in enumerate(_pairs([1, *c["channels"]]), 1):
        first, second = (1, 4) if i == 1 else (2, 5)
        found |= kernel(f"enc{i}.{first}", width, before, 3)
        found |= kernel(f"enc{i}.{second}", width, width, 3)
    up = [*c["channels"][::-1], c["channels"][0]]
    for i, (before, width) in enumerate(_pairs(up), 1):
        found |= kernel(f"dec{i}.2", width, before, 3)
        found |= kernel(f"dec{i}.5", 1 if i == len(c["channels"]) else width, width, 3)
    return found


def _denoiser(c: Config, state: dict[str, np.ndarray]) -> Made:
    p, rng = tensors(state), np.random.RandomState(c["seed"])
    x, noise = drawn(rng, c["B"], 1, c["in_dim"]), drawn(rng, c["B"], 1, c["in_dim"])
    t = torch.from_numpy(rng.randint(0, c["time_steps"], c["B"]))

    def run(t: Tensor) -> Tensor:
        time, h, kept = p["time_encode.weight"][t][:, None], x, []
        for i in range(1, len(c["channels"]) + 1):
            first, second = (1, 4) if i == 1 else (2, 5)
            h = conv(p, f"enc{i}.{first}", _norm(h + time) if i == 1 else _active(h + time))
            h = conv(p, f"enc{i}.{second}", _active(h))
            kept.append(h)
        kept.pop()
        for i in range(1, len(c["channels"]) + 1):
            h = conv(p, f"dec{i}.2", _active(h + time))
            h = conv(p, f"dec{i}.5", _active(h))
            if kept:
                h = h + kept.pop()
        return h

    # As published, all samples have the time of the first.
    found = {"eps_first_t": run(t[:1].expand(len(t))), "eps_per_sample_t": run(t)}
    found["loss_mse_first_t"] = ((found["eps_first_t"] - noise) ** 2).mean()
    inputs = arrays(x=x, noise=noise) | {"t": t.numpy().astype(np.int32)}
    return inputs, arrays(**found), c


_DENOISER: Config = {"B": 3, "in_dim": 12, "channels": [4, 6, 8, 10], "time_steps": 20, "seed": 63}

FIXTURES = {
    "pdiff_ae": _autoencoder_case(
        71, B=2, in_dim=90, kernel_size=5, fold_rate=5, enc_channels=[4, 4],
        dec_channels=[4, 8], input_noise_factor=0.001, latent_noise_factor=0.5, seed=61,
    ),
    "pdiff_ae_small": _autoencoder_case(
        72, B=2, in_dim=120, kernel_size=3, fold_rate=3, enc_channels=[2, 2, 2, 2],
        dec_channels=[2, 8, 8, 4], input_noise_factor=0.1, latent_noise_factor=0.7, seed=62,
    ),
    "pdiff_unet": Case(_denoiser_shapes(_DENOISER), 73, lambda state: _denoiser(_DENOISER, state)),
}  # fmt: skip
