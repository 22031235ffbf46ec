"""The finished meta-model of a target: everything that generates, in one stage."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments.designs import latent_shape, latents_of
from experiments.stages import Stages
from experiments.zoo_generators import Design, flow_stage
from experiments.zoo_targets import SEEDS, ZOO
from flown_jax.meta_model.build import describe
from flown_jax.training.stages import StageContext, StageResult


def model_stage(
    stages: Stages, config: ConfigDict, design: Design, name: str | None = None
) -> StageResult:
    """The description and arrays of the meta-model, of which `MetaModel.restore` makes it.

    Args:
      name: of the stage; None for `model` in a run with one target, `model-NAME` with several.
    """
    target, own = design.target, design.config
    kind = "networks of as many seeds" if target.kind == SEEDS else "states of one network"
    inputs = {
        "codec": design.codec,
        "generator": flow_stage(stages, design),
        "velocity": own.velocity,
        "source": own.flow.source,
        "sampling": {name: config.sampling[name] for name in ("solver", "steps", "samples")},
        "class_names": target.class_names,
        "inputs": target.spec.inputs_dict,
        "trained_on": f"Trained on {len(target.train)} {kind}.",
    }
    if name is None:
        name = "model" if len(config.targets) == 1 else f"model-{target.name}"
    return stages(name, inputs, _assemble)


def _assemble(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    latents = latents_of(given.codec)
    target = dataclasses.replace(
        latents.target, class_names=((ZOO.name, tuple(given.class_names)),)
    )
    size, channels = given.inputs["size"], given.inputs["channels"]
    description, arrays = describe(
        "networks",
        None,
        None,
        None,
        dataclasses.replace(latents, target=target),
        given.generator.values["params"],
        codec=given.codec.values["module"],
        velocity=given.velocity.to_dict(),
        latent_shape=list(latent_shape(given.codec)),
        image_shape=[size, size, channels],
        source=given.source,
        sampling={**given.sampling, "temperature": 1.0},
        trained_on=given.trained_on,
    )
    return {"description": description, "arrays": arrays}
