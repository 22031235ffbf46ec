"""What can be wrong with the zoos that a config names, found before training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.trajectory import variants as trajectories
from configs.zoo import variants as zoos
from experiments import one_zoo
from experiments.fields import check_images
from experiments.zoo_targets import SEEDS, STATES
from flown_jax.errors import UserError
from flown_jax.models.cnn import cnn_small
from flown_jax.weights.spec import WeightSpec


def check_zoos(config: ConfigDict) -> dict[str, WeightSpec]:
    """The specs of all targets, as far as they are known.

    Raises:
      UserError: a zoo that is not there, or of another kind.
    """
    return {name: _checked(config, name) for name in config.targets}


def _checked(config: ConfigDict, name: str) -> WeightSpec:
    """The spec of a target, as far as it is known."""
    part, where = config.targets[name], f"targets.{name}"
    if not part.zoo:
        known = zoos() if part.kind == SEEDS else trajectories()
        if part.variant not in known:
            file = "zoo" if part.kind == SEEDS else "trajectory"
            raise UserError(
                f"{where}.zoo is empty, and configs/{file}.py has no variant {part.variant!r}: "
                "give a folder."
            )
        return _spec()
    found = one_zoo.read(part.zoo, config.held_out_every)
    kind = STATES if found.single else SEEDS
    if kind != part.kind:
        raise UserError(
            f"{where}.kind is {part.kind!r}, and the zoo in {part.zoo} has {kind}: set it."
        )
    if part.align and kind == STATES:
        raise UserError(f"{where}.align is True; states of one network have one order of units.")
    check_images(found.dataset, config.data.dir)
    averaged = config.rivals.get("averaged", 0)
    if len(found.train) < averaged:
        raise UserError(
            f"rivals.averaged is {averaged}; the zoo in {part.zoo} has "
            f"{len(found.train)} networks to average."
        )
    return found.spec


@functools.cache
def _spec() -> WeightSpec:
    """Of CNN-small; the spec of a zoo that is trained here is known later."""
    module, images = cnn_small(), jnp.zeros((1, 28, 28, 3))
    return WeightSpec.from_module(module, jax.eval_shape(module.init, jax.random.key(0), images))
