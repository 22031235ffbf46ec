"""Weight autoencoders.

Every one has `encode(w) -> Posterior` and `decode(z) -> w`; import each from its own file.
"""

from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.losses import reconstruction_loss, vae_loss, vae_loss_from_noise
from flown_jax.encoders.posterior import Posterior

__all__ = [
    "AutoencoderKL",
    "Posterior",
    "reconstruction_loss",
    "vae_loss",
    "vae_loss_from_noise",
]
