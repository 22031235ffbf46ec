"""The finished meta-model of the few-shot experiment: everything that generates, in one stage."""

from __future__ import annotations

from typing import Any

import jax

from experiments.fewshot_generators import CAML_SIZES, Design
from experiments.fewshot_stages import FewShot, Tables
from flown_jax.few_shot.parts import Parts, build
from flown_jax.few_shot.selection import choose_temperature
from flown_jax.image_encoders.encoder import ImageEncoder
from flown_jax.training.stages import StageContext, StageResult


def assemble(
    job: FewShot,
    data: StageResult,
    encoder: ImageEncoder,
    tables: Tables,
    heads: StageResult,
    caml: StageResult,
    design: Design,
    flow: StageResult,
) -> tuple[StageResult, Parts]:
    """The stage `model` and its parts, with the temperatures that validation tasks choose.

    `chosen` of the stage's values has an entry for each setting; the meta-model itself keeps the
    main setting's temperature.
    """
    config = job.config
    uses_caml = "caml" in config.condition.entries
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    description = {
        "format": 2,
        "way": config.tasks.way,
        "shots": list(config.tasks.shots),
        "image_shape": data.values["image_shape"],
        "encoder": encoder.describe(),
        "unit_first": config.transform.unit_first,
        "codec": {"form": config.codec.form, "sizes": config.codec.sizes.to_dict()},
        "caml": {n: config.caml[n] for n in CAML_SIZES} if uses_caml else None,
        "condition": list(config.condition.entries),
        "velocity": config.velocity.to_dict(),
        "latent_shape": list(design.latent_shape),
        "source": config.flow.source,
        "centred": config.targets.centred,
        "sampling": {**sampling, "temperature": 1.0},
    }
    arrays = {
        "transform": {"mean": tables.transform.mean, "scale": tables.transform.scale},
        "space": heads.values["space"],
        "codec": design.codec.values["variables"],
        "latents": design.codec.values["latents"],
        "velocity": flow.values["params"],
    }
    if encoder.variables:
        arrays["encoder"] = encoder.variables
    if uses_caml:
        statistics = design.conditioner.statistics
        arrays["caml"] = caml.values["variables"]
        arrays["slots"] = {"mean": statistics.mean, "std": statistics.std}

    def function(context: StageContext) -> dict[str, Any]:
        parts = build(description, arrays)
        chosen = {
            setting.name: choose_temperature(
                parts,
                tables.validation[setting],
                jax.random.key(config.seed),
                grid=tuple(config.sampling.temperatures),
                samples=min(20, config.sampling.samples),
            )
            for setting in job.settings
        }
        best = chosen[job.settings[0].name]["temperature"]
        context.records.log("model", 0, {"temperature": best})
        whole = {**description, "sampling": {**sampling, "temperature": best}}
        return {"description": whole, "arrays": arrays, "chosen": chosen}

    inputs = {
        "sampling": {k: config.sampling[k] for k in ("solver", "steps", "temperatures", "samples")},
        "description": description,
        "seed": config.seed,
        "validation": tables.learned_from,
        "flow": flow,
        "heads": heads,
    }
    result = job.stage("model", inputs, function)
    return result, build(result.values["description"], result.values["arrays"])
