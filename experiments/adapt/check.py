"""What can be wrong with a config of adaptation, found before anything is trained."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.adapt import get_config
from experiments.adapt.base import opened
from experiments.codec import check_codes
from experiments.fields import check_at_most, check_fields, check_images, check_recipes
from experiments.zoo_check import check_zoos
from flown_jax.data.catalogue import facts
from flown_jax.errors import UserError
from flown_jax.flow.sampling import cut_index, time_grid
from flown_jax.flow.solvers import get_solver
from flown_jax.flow.sources import get_source
from flown_jax.networks.adaptation import PARTS
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
    check_recipes(config)
    specs = check_zoos(config)
    for name, part in config.targets.items():
        _check_new(name, part, specs[name])
        check_images(part.new, config.data.dir)
        if part.base:
            opened(config, name, specs[name] if part.zoo else None)
    if not config.adapt.parts or len(set(config.adapt.parts)) < len(config.adapt.parts):
        raise UserError(
            f"adapt.parts is {tuple(config.adapt.parts)}; it names each of {', '.join(PARTS)} at "
            "most once, and one at least."
        )
    get_solver(config.sampling.solver)
    cut_index(time_grid(config.sampling.steps), config.adapt.gradient_from)
    for steps in config.cut.steps:
        for t in config.cut.times:
            cut_index(time_grid(steps), t)
    if config.adjoint.last + config.adjoint.others > config.adjoint.steps:
        raise UserError(
            f"adjoint.last and adjoint.others are {config.adjoint.last} and "
            f"{config.adjoint.others}; a path has adjoint.steps = {config.adjoint.steps} in all."
        )
    check_at_most(config, "rivals.tuned_on", "rivals.networks")
    for kind in ("states", "seeds"):
        check_codes(config[kind])
        source = get_source(config[kind].flow.source)
        if not source.is_gaussian:
            raise UserError(
                f"{kind}.flow.source is {source.name!r}; adjoint matching needs a Gaussian one."
            )


def _check_new(name: str, part: ConfigDict, spec: WeightSpec) -> None:
    known, outputs = facts(part.new), spec.sizes_dict["num_classes"]
    if outputs != len(known.class_names):
        raise UserError(
            f"targets.{name}.new is {part.new}, which has {len(known.class_names)} classes; the "
            f"networks have {outputs} outputs."
        )
