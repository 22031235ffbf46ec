"""The finished meta-model of the few-shot experiment: everything that generates, in one stage."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.fewshot.designs import Design, latents_of
from experiments.settings import settings
from experiments.stages import Stages
from experiments.tasks import Tables, conditioner_of
from flown_jax.few_shot.sampling import draw_heads
from flown_jax.few_shot.selection import choose_temperature
from flown_jax.image_encoders import ImageEncoder
from flown_jax.meta_model.build import build, describe
from flown_jax.meta_model.condition import Conditioner
from flown_jax.training.parallel import spread
from flown_jax.training.stages import StageContext, StageResult


def model_stage(
    stages: Stages,
    config: ConfigDict,
    data: StageResult,
    encoder: ImageEncoder,
    tables: Tables,
    heads: StageResult,
    design: Design,
    flow: StageResult,
) -> StageResult:
    """The description and arrays of the meta-model, with temperatures that validation chooses.

    `chosen` of the stage's values has an entry for each setting; the meta-model itself keeps the
    main setting's temperature.
    """
    main = settings(config.tasks.settings)[0]
    sampling = {name: config.sampling[name] for name in ("solver", "steps", "samples")}
    classes = len(data.values["split"]["train"])
    inputs = {
        "sampling": sampling,
        "temperatures": config.sampling.temperatures,
        "seed": config.seed,
        "validation": tables.validation,
        "main": main.name,
        "encoder": encoder,
        "transform": tables.transform,
        "train": tables.train,
        "velocity": design.velocity,
        "condition": design.condition,
        "source": design.flow.source,
        "image_shape": data.values["image_shape"],
        "trained_on": f"{classes} classes of {config.data.name}",
        "heads": heads,
        "codec": design.codec,
        "caml": design.caml,
        "flow": flow,
    }
    return stages("model", inputs, _assemble)


def _assemble(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    sampling = {**given.sampling, "temperature": 1.0}
    description, arrays = describe(
        "heads",
        given.encoder,
        given.transform,
        conditioner_of(given.condition, given.train, given.caml),
        latents_of(given.codec, given.heads),
        given.flow.values["params"],
        codec=given.codec.values["module"],
        velocity=given.velocity.to_dict(),
        latent_shape=list(given.codec.values["latent_shape"]),
        image_shape=list(given.image_shape),
        source=given.source,
        sampling=sampling,
        trained_on=given.trained_on,
    )
    parts = build(description, arrays)
    draw = jax.jit(draw_heads, static_argnames=("samples",))
    key, samples = jax.random.key(given.seed), min(20, given.sampling["samples"])
    chosen = {}
    for name, table in given.validation.items():
        support = spread(table.support())
        condition = jax.jit(Conditioner.__call__)(parts.conditioner, support)
        at = partial(draw, parts, key, support, samples=samples, condition=condition)
        chosen[name] = choose_temperature(at, table, tuple(given.temperatures))
    best = chosen[given.main]["temperature"]
    context.records.log("model", 0, {"temperature": best})
    whole = {**description, "sampling": {**sampling, "temperature": best}}
    return {"description": whole, "arrays": arrays, "chosen": chosen}
