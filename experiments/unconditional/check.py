"""What can be wrong with a config of unconditional generation, found before training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.unconditional import get_config
from experiments.codec import check_codes, checked_latent
from experiments.designs import changed
from experiments.fields import check_at_most, check_fields, check_recipes, fitting
from experiments.zoo_check import check_zoos
from experiments.zoo_targets import KINDS
from flown_jax.encoders.codecs import tuples
from flown_jax.errors import UserError
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from flown_jax.velocity.make import make_velocity
from flown_jax.weights.spec import WeightSpec


def check(config: ConfigDict) -> None:
    """Refuse what cannot be read or trained; nothing is computed.

    Raises:
      UserError: the first wrong field or zoo; the sentence names it.
    """
    check_fields(config, get_config())
    if not len(config.targets):
        raise UserError("targets names no zoo; give one at least.")
    if config.sampling.samples < 2:
        raise UserError(f"sampling.samples is {config.sampling.samples}; it must be 2 or more.")
    if len(config.rivals.losses) != 2:
        raise UserError(
            f"rivals.losses is {tuple(config.rivals.losses)}; there are two rows of noise."
        )
    check_at_most(config, "ddpm.steps", "ddpm.timesteps")
    check_at_most(config, "pdiff.ddpm.steps", "pdiff.ddpm.timesteps")
    check_recipes(config)
    specs = check_zoos(config)
    for kind in KINDS:
        own = [spec for name, spec in specs.items() if config.targets[name].kind == kind]
        for part in config[kind].beside.values():
            design = changed(config[kind], part.to_dict())
            check_recipes(design, f"{kind}.")
            for spec in own:
                _check_design(design, spec)
    for name, spec in specs.items():
        part = config.targets[name]
        for beside, changes in part.get("beside", {}).items():  # a later field
            if beside not in config[part.kind].beside:
                raise UserError(
                    f"targets.{name}.beside changes {beside!r}, and {part.kind}.beside has no such "
                    "design."
                )
            design = changed(config[part.kind], config[part.kind].beside[beside].to_dict())
            design = changed(design, changes.to_dict())
            check_recipes(design, f"{part.kind}.")
            _check_design(design, spec)
        design = changed(config[part.kind], part.design.to_dict())
        check_recipes(design, f"{part.kind}.")
        _check_design(design, spec)
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros((1, 2)))


def _check_design(config: ConfigDict, spec: WeightSpec) -> None:
    codec, flow = config.codec, config.flow
    if codec.encoder == "graph" and spec.partial:
        return  # there is no such row of a part
    if not 1 <= codec.members <= codec.recipe.batch:
        raise UserError(
            f"codec.members is {codec.members}; a mix has from 1 to codec.recipe.batch = "
            f"{codec.recipe.batch} of them."
        )
    if not (codec.weights_weight or codec.task_weight):
        raise UserError("codec has neither weights_weight nor task_weight: nothing is learned.")
    check_codes(config)
    get_coupling(flow.coupling)
    get_source(flow.source)
    latent = checked_latent(codec, (spec.size,), spec)
    sizes = tuples(config.velocity.sizes.to_dict())
    with fitting(f"velocity.sizes, with velocity.kind {config.velocity.kind!r},"):
        make_velocity(config.velocity.kind, latent, **sizes)
