"""What can be wrong with a zoo's config, found before anything is trained."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from configs.zoo import get_config
from experiments.fields import check_fields, check_images, fitting
from experiments.zoo_training import plan, preprocessing
from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn

_CLASSES = 10  # for the shapes; the data set's own are known when it was read


def check(config: ConfigDict) -> None:
    """Refuse what cannot be trained; nothing is computed and no image read.

    Raises:
      UserError: a wrong field; the sentence names it.
    """
    check_fields(config, get_config())
    check_images(config.data.name, config.data.dir)
    inputs, network = preprocessing(config.inputs), config.network
    plan(config)
    with fitting("network.sizes"):
        module = registry.build(network.name, {**network.sizes.to_dict(), "num_classes": _CLASSES})
        if not isinstance(module, CNN):
            raise UserError(
                f"network.name is {network.name!r}; zoos are trained of networks 'cnn'."
            )
        shape = (inputs.size, inputs.size, inputs.channels)
        scheme = config.initialisation
        jax.eval_shape(lambda key: initialise_cnn(key, module, shape, scheme), jax.random.key(0))
