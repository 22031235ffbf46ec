"""The adapted generator as a meta-model, in one stage."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.stages import Stages
from experiments.zoo_targets import Target
from flown_jax.networks import adaptation
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
    before = base.generator(given)
    generator = adaptation.adapted(before, trained)
    latents, own = generator.latents, generator.context.name
    names = {**dict(latents.target.class_names), own: tuple(given.class_names)}
    target = dataclasses.replace(latents.target, class_names=tuple(names.items()))
    if generator.residual is not None:
        # What is added behind the decoder is a shift of where standardised vectors are put.
        target = dataclasses.replace(target, mean=target.mean + target.scale * generator.residual)
    values = given.model.values
    about, target_arrays = target.describe()
    description = {
        **values["description"],
        "target": {"kind": "networks", **about},
        "sampling": {**given.solver, "samples": given.samples, "temperature": 1.0},
        "trained_on": f"{values['description'].get('trained_on', '')} {given.trained_on}".strip(),
    }
    arrays = {
        **values["arrays"],
        "target": target_arrays,
        "codec": latents.variables,
        "velocity": generator.params,
    }
    return {"description": description, "arrays": arrays}
