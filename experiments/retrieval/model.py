"""The finished meta-model: everything that generates, in one stage."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments.designs import latent_shape, latents_of
from experiments.retrieval.conditions import Sight
from experiments.retrieval.designs import Design
from experiments.retrieval.zoos import Data
from experiments.stages import Stages
from flown_jax.meta_model.build import describe
from flown_jax.networks.conditions import centres
from flown_jax.training.stages import StageContext, StageResult


def model_stage(
    stages: Stages,
    config: ConfigDict,
    data: Data,
    sight: Sight,
    design: Design,
    flow: StageResult,
) -> StageResult:
    """The description and arrays of the meta-model, of which `MetaModel.restore` makes it."""
    inputs = {
        **design.drawn_from(flow),
        "sampling": {name: config.sampling[name] for name in ("solver", "steps", "samples")},
        "sight": sight,
        "class_names": {name: data.images[name].class_names for name in data.names},
        "trained_on": trained_on(data),
    }
    return stages("model", inputs, _assemble)


def trained_on(data: Data) -> str:
    """The networks that were learned from, in a sentence."""
    parts = []
    for name, zoo in data.zoos.items():
        epochs = " and ".join(map(str, sorted(set(zoo.table["epoch"]))))
        parts.append(f"{len(zoo)} networks of {name} at epoch {epochs}")
    return f"Trained on {', '.join(parts)}."


def _assemble(context: StageContext) -> dict[str, Any]:
    given, sight = context.inputs, context.inputs.sight
    latents = latents_of(given.codec)
    target = dataclasses.replace(
        latents.target,
        centres=centres(given.conditions.values["train"]),
        class_names=tuple((name, tuple(of)) for name, of in given.class_names.items()),
    )
    description, arrays = describe(
        "networks",
        sight.encoder,
        sight.transform,
        sight.conditioner(),
        dataclasses.replace(latents, target=target),
        given.generator.values["params"],
        codec=given.codec.values["module"],
        velocity=given.velocity.to_dict(),
        latent_shape=list(latent_shape(given.codec)),
        image_shape=list(sight.image_shape),
        source=given.source,
        sampling={**given.sampling, "temperature": 1.0},
        trained_on=given.trained_on,
    )
    return {"description": description, "arrays": arrays}
