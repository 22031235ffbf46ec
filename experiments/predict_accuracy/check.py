"""What can be wrong with a reader's config, found before anything is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.predict_accuracy import get_config
from experiments.fields import check_fields, check_recipes, fitting
from experiments.predict_accuracy.networks import read
from experiments.predict_accuracy.readers import module


def check(config: ConfigDict) -> None:
    """Refuse what cannot be read or trained; nothing is computed.

    Raises:
      UserError: a wrong field or zoo; the sentence names it.
    """
    check_fields(config, get_config())
    check_recipes(config)
    spec = read(config).spec
    w = jax.ShapeDtypeStruct((1, spec.size), jnp.float32)
    for backbone in config.encoder.backbones:
        with fitting(f"encoder.graph, with the backbone {backbone!r},"):
            encoder: Any = module(spec, ConfigDict({**config.encoder, "backbone": backbone}))
            jax.eval_shape(encoder.init, jax.random.key(0), w)
