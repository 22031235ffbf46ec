"""The adapted generator as a meta-model, in one stage."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.stages import Stages
from experiments.zoo_targets import Target
from flown_jax.networks import adaptation
from flown_jax.networks.adapting import described
from flown_jax.training.stages import StageContext, StageResult


def model_stage(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    new: New,
    given: dict[str, Any],
    adapted: StageResult,
) -> StageResult:
    """The description and arrays of the meta-model, of which `MetaModel.restore` makes it.

    The stage of what was trained keeps that alone, beside the fingerprint of the generator.

    Args:
      given: as `base.given` gives it. adapted: finished stage.
    """
    part = adapted.name.removeprefix(f"{target.name}-")
    inputs = {
        **given,
        "adapted": adapted,
        "samples": config.sampling.samples,
        "class_names": new.order.names(new.class_names),
        "trained_on": f"Its {part} adapted to {new.name}.",
    }
    name = "model" if len(config.targets) == 1 else f"model-{target.name}"
    return stages(name, inputs, _assemble)


def _assemble(context: StageContext) -> dict[str, Any]:
    given, trained = context.inputs, context.inputs.adapted.values["trained"]
    generator = adaptation.adapted(base.generator(given), trained)
    values = given.model.values
    description, arrays = described(
        values["description"], values["arrays"], generator, given.class_names, given.trained_on
    )
    description["sampling"] = {**given.solver, "samples": given.samples, "temperature": 1.0}
    return {"description": description, "arrays": arrays}
