"""The generator that is adapted: trained here, or of a finished run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import zoo_generators as generators
from experiments.adapt.new import New
from experiments.stages import Stages
from experiments.zoo_measures import reconstruction, say_reconstruction
from experiments.zoo_model import model_stage
from experiments.zoo_targets import Target
from flown_jax.api import MetaModel
from flown_jax.errors import UserError
from flown_jax.meta_model import support
from flown_jax.meta_model.build import build
from flown_jax.networks.adaptation import Generator, generator_of
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.stages import StageContext
from flown_jax.weights.spec import WeightSpec


def given(stages: Stages, config: ConfigDict, target: Target, new: New) -> dict[str, Any]:
    """What a stage takes that draws networks of the generator: a meta-model, and its solver.

    Raises:
      UserError: a finished run that holds no meta-model, or one of other networks.
    """
    part, name = config.targets[target.name], f"{target.name}-generator"
    if not part.base:
        design = generators.make(stages, config, target)
        say_reconstruction(target, {"vae": reconstruction(stages, target, design)})
        made = model_stage(stages, config, design, name)
    else:
        model = opened(config, target.name, target.spec)
        condition, context = _shown(config, part.base_of, model, new)
        check_networks(part.base, model, target.spec, context)
        inputs = {
            "description": model.description,
            "arrays": model.arrays,
            "condition": condition,
            "context": context.name,
        }
        made = stages(name, inputs, _keep)
    return {"model": made, "solver": {name: config.sampling[name] for name in ("solver", "steps")}}


def opened(config: ConfigDict, name: str, spec: WeightSpec | None) -> MetaModel:
    """The meta-model of the finished run that a target names.

    Raises:
      UserError: there is none, or it makes heads, or networks of another kind than the zoo's.
    """
    part = config.targets[name]
    try:
        model = MetaModel.restore(part.base)
    except UserError:
        if not part.base_of:
            raise
        model = MetaModel.restore(part.base, target=part.base_of)
    if not isinstance(model.parts.target, NetworkSpace):
        raise UserError(
            f"targets.{name}.base is {part.base}, whose meta-model makes "
            f"{model.parts.target.what}; what is adapted here are whole networks."
        )
    if spec is not None and not model.conditional:
        check_networks(part.base, model, spec, model.parts.target.unshown(None)[0])
    return model


def check_networks(where: str, model: MetaModel, spec: WeightSpec, context: OfSet) -> None:
    """Refuse a meta-model of other networks than those of the zoo.

    Raises:
      UserError: names the number of weights of both.
    """
    own = model.parts.target.network(context)[0]
    if own.size != spec.size or own.to_json() != spec.to_json():
        raise UserError(
            f"the meta-model in {where} makes networks of {own.size:,} weights that are not those "
            f"of the zoo, of {spec.size:,}."
        )


def generator(given: Any) -> Generator:
    """The generator of a stage's inputs, as `given` gives them."""
    values = given.model.values
    parts = build(values["description"], values["arrays"])
    condition = jax.tree.map(jnp.asarray, dict(values.get("condition", {})))
    context = values.get("context") or parts.target.unshown(None)[0].name
    return generator_of(parts, condition or None, OfSet(context), **given.solver)


def _keep(context: StageContext) -> dict[str, Any]:
    """A finished run's meta-model as it is, and what it is shown."""
    return dict(vars(context.inputs))


def _shown(
    config: ConfigDict, like: str, model: MetaModel, new: New
) -> tuple[dict[str, np.ndarray], OfSet]:
    """The condition of the first images of every class, and whose networks are made."""
    if not model.conditional:
        return {}, model.parts.target.unshown(None)[0]
    found = new.outputs(new.train)
    rows = [np.flatnonzero(found.labels == c)[: config.adapt.shown] for c in range(new.way)]
    chosen = np.concatenate(rows)
    condition, context, _ = support.shown(
        model.parts, found.images[chosen], found.labels[chosen], None, like or None
    )
    return {name: np.asarray(value) for name, value in condition.items()}, context
