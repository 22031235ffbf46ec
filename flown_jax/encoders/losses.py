"""Training losses of weight autoencoders (paper eq. 2 and A.3.2).

Loss = reconstruction + kl_weight * mean over the batch of KL(q(z | w) || N(0, I)). The KL is a sum
over latent entries, so kl_weight = 1e-2 is balanced only by a reconstruction term that is a sum
over weights too; against a mean squared error the posterior collapses.

The noisy pass of A.3.2: z = f(w + xi_in), w_hat = g(z + xi_lat); the target is the clean w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError

RECONSTRUCTIONS = ("sse", "l1_sum", "l1_sum_plus_1000mse", "mse")


def vae_loss(
    encode: Callable[[Array], Posterior],
    decode: Callable[[Array], Array],
    key: Array,
    w: Array,
    *,
    reconstruction: str,
    kl_weight: float,
    sigma_in: float = 0.0,
    sigma_lat: float = 0.0,
    mask: Array | None = None,
    present: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Loss of one batch with a drawn latent and the noises of A.3.2.

    Args:
      encode, decode: w (B, ...) to Posterior, and latents to weights.
      key: split into the latent's, the input's and the latent noise's.
      w: clean weights (B, ...).
      reconstruction: `sse`, `l1_sum`, `l1_sum_plus_1000mse` or `mse`, see `reconstruction_loss`.
      kl_weight: beta (paper: 1e-2 for retrieval, 1e-6 for few-shot).
      sigma_in, sigma_lat: scales of the two noises (paper: 0.001 and 0.5; 0 for none).
      mask: 1 where a weight counts, 0 at padding; broadcast against w.
      present: (B,), networks that count; others, the padding of a batch of graphs, are in no mean.
    Returns:
      Scalar, and a dict of `reconstruction`, `kl` (scalars), `w_hat` (B, ...) and the `latent` that
      was decoded.
    Raises:
      UserError: unknown reconstruction.
    """
    key_latent, key_in, key_lat = jax.random.split(key, 3)
    noise_in = sigma_in * jax.random.normal(key_in, w.shape, w.dtype)
    posterior = encode(w + noise_in)
    z = posterior.sample(key_latent)
    z = z + sigma_lat * jax.random.normal(key_lat, z.shape, z.dtype)
    return _loss(posterior, z, decode(z), w, reconstruction, kl_weight, mask, present)


def vae_loss_from_noise(
    encode: Callable[[Array], Posterior],
    decode: Callable[[Array], Array],
    w: Array,
    noise: Array,
    *,
    reconstruction: str,
    kl_weight: float,
    noise_in: Array | float = 0.0,
    noise_lat: Array | float = 0.0,
    mask: Array | None = None,
    present: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """`vae_loss` with given draws: the latent's standard normal `noise`, xi_in and xi_lat."""
    posterior = encode(w + noise_in)
    z = posterior.from_noise(noise) + noise_lat
    return _loss(posterior, z, decode(z), w, reconstruction, kl_weight, mask, present)


def reconstruction_loss(
    name: str,
    w: Array,
    w_hat: Array,
    mask: Array | None = None,
    present: Array | None = None,
) -> Array:
    """Scalar distance between the weights w and their reconstruction, both (B, ...).

    Args:
      name: `sse`: half the squared error summed over a sample (unit-variance Gaussian), mean over
        the batch; `l1_sum`: absolute error, likewise; `mse`: mean squared error over all entries;
        `l1_sum_plus_1000mse`: D2NWG's l1_sum + 1000 mse.
      mask: entries that count, broadcast against w; sums and means go over these only.
      present: (B,), samples that count; the batch is these.
    Raises:
      UserError: unknown name.
    """
    if name not in RECONSTRUCTIONS:
        raise UserError(
            f"Reconstruction loss {name!r} is unknown; choose one of {', '.join(RECONSTRUCTIONS)}."
        )
    kept = jnp.ones_like(w) if mask is None else jnp.broadcast_to(mask, w.shape).astype(w.dtype)
    count: Array | float = w.shape[0]
    if present is not None:
        kept = kept * _broad(present, w)
        count = jnp.maximum(present.sum(), 1)
    error = (w - w_hat) * kept
    squares = jnp.square(error).sum()
    mse = squares / jnp.maximum(kept.sum(), 1.0)
    if name == "mse":
        return mse
    if name == "sse":
        return 0.5 * squares / count
    l1_sum = jnp.abs(error).sum() / count
    return l1_sum if name == "l1_sum" else l1_sum + 1000.0 * mse


def pdiff_loss(
    codec: Any,
    variables: Any,
    key: Array,
    batch: Mapping[str, Any],
    target: Any,
    *,
    sigma_in: float = 0.001,
    sigma_lat: float = 0.5,
) -> tuple[Array, dict[str, Array]]:
    """p-diff's loss of its autoencoder, with drawn noise, as `train_codec` takes one.

    Args:
      codec, variables: with `encode` and `decode`. key: split into the two noises'.
      batch: with `weights` and `context`, of which `target.normalise` makes w (B, ...).
      sigma_in, sigma_lat: see `pdiff_loss_from_noise` (published: 0.001 and 0.5).
    Returns:
      Scalar, and the metrics `reconstruction` (the same) and `latent_std`.
    """
    w = target.normalise(batch["weights"], batch["context"])
    key_in, key_lat = jax.random.split(key)

    def encode(w: Array) -> Posterior:
        return codec.apply(variables, w, method="encode")

    loss, aux = pdiff_loss_from_noise(
        encode,
        lambda z: codec.apply(variables, z, method="decode"),
        w,
        jax.random.normal(key_in, w.shape, w.dtype),
        lambda z: jax.random.normal(key_lat, z.shape, z.dtype),
        sigma_in=sigma_in,
        sigma_lat=sigma_lat,
    )
    return loss, {"reconstruction": loss, "latent_std": jnp.std(aux["latent"])}


def pdiff_loss_from_noise(
    encode: Callable[[Array], Posterior],
    decode: Callable[[Array], Array],
    w: Array,
    noise_in: Array,
    noise_lat: Array | Callable[[Array], Array],
    *,
    sigma_in: float,
    sigma_lat: float,
) -> tuple[Array, dict[str, Array]]:
    """Mean squared error to the clean w (B, ...) of p-diff's noisy pass.

    Both noises take the place of a part of what they are added to, (1 - s) x + s noise, and the
    noisy latent is clipped to [-1, 1]. Neither happens outside of the training.

    Args:
      noise_in: standard normal, as w. noise_lat: likewise as the latent, or what makes it of it.
    Returns:
      Scalar, and a dict of the noisy `latent` and `w_hat` (B, ...).
    """
    z = encode((1 - sigma_in) * w + sigma_in * noise_in).mode()
    noise = noise_lat(z) if callable(noise_lat) else noise_lat
    z = jnp.clip((1 - sigma_lat) * z + sigma_lat * noise, -1.0, 1.0)
    w_hat = decode(z)
    return jnp.mean(jnp.square(w_hat - w)), {"latent": z, "w_hat": w_hat}


def _loss(posterior, z, w_hat, w, reconstruction, kl_weight, mask, present):
    distance = reconstruction_loss(reconstruction, w, w_hat, mask, present)
    kl = posterior.kl()
    kl = kl.mean() if present is None else (kl * present).sum() / jnp.maximum(present.sum(), 1)
    aux = {"reconstruction": distance, "kl": kl, "w_hat": w_hat, "latent": z}
    return distance + kl_weight * kl, aux


def _broad(present, w):
    return present.astype(w.dtype).reshape(-1, *(1 for _ in w.shape[1:]))
