"""What can be wrong with the config of autoencoders of one zoo, found before one is trained."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.reconstruct import get_config
from experiments.codec import checked_latent
from experiments.fields import check_fields, check_images, check_recipes
from experiments.one_zoo import read
from experiments.reconstruct.methods import codec_config
from flown_jax.weights.graphs import topology


def check(config: ConfigDict) -> None:
    """Refuse what cannot be read or trained; nothing is computed and no image read.

    Raises:
      UserError: a wrong field or zoo; the sentence names it.
    """
    check_fields(config, get_config())
    check_recipes(config)
    networks = read(config.zoo, config.held_out_every)
    check_images(networks.dataset, config.data.dir)
    spec = networks.spec
    if not spec.partial:
        topology(spec)  # whose units are permuted
    for method in config.methods:
        checked_latent(codec_config(config, method), (spec.size,), spec)
