"""What the few-shot experiment measures on its tasks: rows, curves and reliability, by setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.fewshot.designs import Design
from experiments.fewshot.heads import nearest_shot, probe_of
from experiments.fewshot.methods import Methods
from experiments.stages import Stages
from experiments.tasks import Tables
from flown_jax.data.episodes import Setting
from flown_jax.evaluation.predictions import Prediction, rows_of
from flown_jax.few_shot.evaluation import sampled
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.training.stages import StageContext, StageResult

# Paired differences of accuracy are taken to these.
REFERENCES = {
    "probe": "linear_probe",
    "class_mean": "class_mean",
    "cosine": "cosine_class_mean",
    "ridge": "ridge",
    "logistic": "logistic_regression",
    "caml": "caml",
    "caml_and_base": "caml_and_base",
    "regression": "regression",
}
SHOWN = ("linear_probe", "class_mean", "caml", "regression", "flown_mean", "flown_ensemble")
_POINTS = 100_000  # predictions of a reliability diagram


def evaluation_stage(
    stages: Stages,
    config: ConfigDict,
    setting: Setting,
    tables: Tables,
    trained: Mapping[str, StageResult],
    beside: Mapping[str, tuple[Design, StageResult]],
    *,
    curves: bool,
) -> StageResult:
    """Rows of all methods on every set of one setting; test tasks are used here.

    Args:
      trained: stages `baselines`, `heads`, `caml`, `ddpm`, `regression` and `model`.
      beside: designs by name, with their flows.
      curves: whether curves and reliability data are wanted too.
    """
    of_sampling = ("samples", "top", "solver", "steps")
    of_curves = ("nfe_curve", "curve_samples", "curve_tasks") if curves else ()
    targets = trained["heads"].values["chosen"]["target_temperature"]
    inputs = {
        "setting": setting.name,
        "way": setting.way,
        "seed": config.seed,
        "sampling": {name: config.sampling[name] for name in (*of_sampling, *of_curves)},
        "temperatures": config.sampling.temperatures,
        "ddpm": {name: config.ddpm[name] for name in ("timesteps", "steps", "samples")},
        "base_weights": config.caml.base_weights,
        "has_base": bool(config.targets.base_scales),
        "probe": probe_of(config.probe),
        "noise": config.condition.noise,
        "curves": curves,
        "train": tables.train,
        "validation": tables.validation[setting.name],
        "test": {name: of[setting.name] for name, of in tables.test.items()},
        "units": {name: tables.unit(name, setting.name) for name in tables.test},
        "chosen": {
            **trained["baselines"].values[setting.name],
            **trained["model"].values["chosen"][setting.name],
            "target_temperature": nearest_shot(targets, setting.shot),
        },
        "heads": trained["heads"],
        "caml": trained["caml"],
        "ddpm_stage": trained["ddpm"],
        "regression": trained["regression"],
        "model": trained["model"],
        "beside": {
            name: {
                "velocity": design.velocity,
                "condition": design.condition,
                "source": design.flow.source,
                "codec": design.codec,
                "caml": design.caml,
                "flow": flow,
            }
            for name, (design, flow) in beside.items()
        },
    }
    return stages(f"evaluation-{setting.slug}", inputs, _evaluate, version=2)


def _evaluate(context: StageContext) -> dict[str, Any]:
    """Temperatures of `nll_tempered` are fitted on validation tasks."""
    given, methods = context.inputs, Methods(context.inputs)
    methods.choose(given.validation)
    on_validation = methods.predictions(given.validation, "validation")
    fitted = {name: prediction.temperature() for name, prediction in on_validation.items()}
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    diagrams: dict[str, Any] = {}
    for name, table in given.test.items():
        predictions = methods.predictions(table, name)
        references = {k: v for k, v in REFERENCES.items() if v in predictions}
        rows += rows_of(
            predictions,
            references=references,
            set_name=name,
            unit=given.units[name],
            table=given.setting,
            temperatures=fitted,
        )
        if given.curves:
            found[name] = _curves(methods, table, name)
            diagrams[name] = {m: _diagram(predictions[m]) for m in SHOWN if m in predictions}
    return {
        "rows": rows,
        "curves": found,
        "reliability": diagrams,
        "nfe": methods.nfe,
        "caml_weight": methods.caml_weight,
        "temperatures": fitted,
        "sampling_temperatures": methods.temperatures,
    }


def _curves(methods: Methods, table: TaskTable, name: str) -> dict[str, Any]:
    """Accuracy and likelihood against function evaluations, and against heads averaged."""
    given, key = methods.given, methods.key("curves", name)
    table = table.take(slice(0, given.sampling["curve_tasks"]))
    support, query = jnp.asarray(table.support()), jnp.asarray(table.query())
    common = {
        "condition": methods.condition(support),
        "temperature": given.chosen["temperature"],
    }
    count, of_nfe, of_heads = given.sampling["curve_samples"], [], []
    for steps in given.sampling["nfe_curve"]:
        options = {"solver": "euler", "steps": steps, "samples": count, **common}
        heads, nfe = methods.draw(methods.parts, key, support, **options)
        found = sampled(heads, query, support, min(given.sampling["top"], count))
        accuracies = {kind: float(p.accuracy().mean()) for kind, p in found.items()}
        nll = float(found["ensemble"].nll().mean())
        of_nfe.append({"nfe": round(float(nfe), 1), **accuracies, "nll": nll})
    heads, _ = methods.draw(methods.parts, key, support, samples=methods.samples, **common)
    for number in [n for n in (1, 2, 5, 10, 20, 50) if n <= len(heads)]:
        mixture = sampled(heads[:number], query, support, 1)["ensemble"]
        figures = {"accuracy": mixture.accuracy().mean(), "nll": mixture.nll().mean()}
        figures = {name: float(value) for name, value in figures.items()}
        of_heads.append({"heads": number, **figures, "ece": mixture.ece()[0]})
    return {"nfe": of_nfe, "heads": of_heads}


def _diagram(prediction: Prediction) -> dict[str, np.ndarray]:
    """Confidences, and whether the predictions are right."""
    right = prediction.log_probs.argmax(-1) == prediction.labels
    confidence = np.exp(prediction.log_probs.max(-1))
    return {"confidence": confidence.ravel()[:_POINTS], "right": right.ravel()[:_POINTS]}
