"""What the few-shot experiment measures on its tasks: every method of the table."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flown_jax.few_shot.evaluation import Prediction, rows_of, sampled, single
from flown_jax.few_shot.generator import (
    Conditioner,
    LatentSpace,
    regress,
    sample_diffusion,
)
from flown_jax.few_shot.parts import Parts
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.few_shot.training import caml_log_probs, fit_heads
from flown_jax.flow import diffusion
from flown_jax.models import heads as linear

SETS = ("in_distribution", "out_of_distribution")
# Paired differences of accuracy are taken to these.
REFERENCES = {
    "probe": "linear_probe",
    "class_mean": "class_mean",
    "ridge": "ridge",
    "caml": "caml",
    "regression": "regression",
}


class Evaluation:
    """Every method of the table on sets of tasks; each program is compiled once."""

    def __init__(
        self,
        config: ConfigDict,
        parts: Parts,
        chosen: dict[str, Any],
        rivals: dict[str, Any],
        caml: tuple[Any, Any],
    ) -> None:
        self.config, self.parts, self.chosen, self.caml = config, parts, chosen, caml
        self.nfe: dict[str, float] = {}
        self.samples = config.sampling.samples
        # Arrays are arguments of the compiled programs, never constants inside of them.
        self.condition = partial(jax.jit(Conditioner.__call__), parts.conditioner)
        self.draw = partial(
            jax.jit(Parts.sample, static_argnames=("samples", "solver", "steps")), parts
        )
        self.reconstruct = partial(jax.jit(_reconstruct), parts.latents)
        self.regress = partial(
            jax.jit(regress, static_argnums=(0, 5)), parts.velocity, rivals["regression"]
        )
        self.draw_ddpm = partial(
            jax.jit(
                sample_diffusion,
                static_argnums=1,
                static_argnames=("schedule", "latent_shape", "samples", "steps"),
            ),
            schedule=diffusion.iddpm_linear_schedule(config.ddpm.timesteps),
            latent_shape=parts.latent_shape,
            samples=self.samples,
            steps=config.ddpm.steps,
        )
        self.ddpm_params = rivals["ddpm"]

    def predictions(self, table: TaskTable, seed: int) -> dict[str, Prediction]:
        """Predictions of all methods on the tasks of a table, in the order of the results.

        Tasks go through in parts of one size, so that all sets run the same programs.
        """
        size = self.config.tasks.test
        parts = [
            self._part(table.take(slice(start, start + size)), (seed, start))
            for start in range(0, len(table), size)
        ]
        return {
            name: Prediction(np.concatenate([part[name].log_probs for part in parts], axis=1))
            for name in parts[0]
        }

    def _part(self, table: TaskTable, seed: tuple[int, int]) -> dict[str, Prediction]:
        key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
        key_flow, key_ddpm, key_other = jax.random.split(key, 3)
        parts = self.parts
        support, query = jnp.asarray(table.support()), jnp.asarray(table.query())
        prototypes, condition = support.mean(2), self.condition(support)
        tasks, way, count = query.shape[:3]
        of_probe = jnp.asarray(
            fit_heads(table, length=self.chosen["length"], **probe_settings(self.config))
        )
        decoded = self.reconstruct(of_probe / self.chosen["target_temperature"], prototypes)
        made = {
            "chance": Prediction(np.full((1, tasks, way * count, way), -np.log(way))),
            "class_mean": single(linear.class_mean(support), query),
            "linear_probe": single(of_probe, query),
            "ridge": single(linear.ridge(support, l2=self.chosen["l2"]), query),
            "vae_reconstruction": single(decoded, query),
            "caml": Prediction(caml_log_probs(*self.caml, table)[None]),
            "regression": single(
                self.regress(parts.latents, condition, prototypes, parts.latent_shape), query
            ),
        }
        heads, nfe = self.draw_ddpm(
            key_ddpm, parts.velocity, self.ddpm_params, parts.latents, condition, prototypes
        )
        self.nfe["ddpm"] = round(float(nfe), 1)
        made |= self._named("ddpm", heads, query, support, ("mean", "ensemble", "top_support"))
        heads, nfe = self.draw(key_flow, support, condition=condition, samples=self.samples)
        self.nfe["flown"] = round(float(nfe), 1)
        kinds = ("mean", "ensemble", "top_support", "top_query")
        made |= self._named("flown", heads, query, support, kinds)
        other = jnp.roll(support, 1, axis=0)
        heads, _ = self.draw(
            key_other, other, condition=self.condition(other), samples=self.samples
        )
        made["flown_other_support"] = sampled(heads, query, support, 1)["mean"]
        return made

    def curves(self, table: TaskTable, seed: int) -> dict[str, Any]:
        """Accuracy and likelihood against function evaluations, and against heads averaged."""
        support, query = jnp.asarray(table.support()), jnp.asarray(table.query())
        condition, key = self.condition(support), jax.random.key(seed)
        count = self.config.sampling.curve_samples
        of_nfe = []
        for steps in self.config.sampling.nfe_curve:
            heads, nfe = self.draw(
                key, support, condition=condition, solver="euler", steps=steps, samples=count
            )
            found = sampled(heads, query, support, min(self.config.sampling.top, count))
            accuracies = {kind: float(p.accuracy().mean()) for kind, p in found.items()}
            of_nfe.append({"nfe": round(float(nfe), 1), **accuracies})
        heads, _ = self.draw(key, support, condition=condition, samples=self.samples)
        of_heads = []
        for number in [n for n in (1, 2, 5, 10, 20, 50) if n <= len(heads)]:
            mixture = sampled(heads[:number], query, support, 1)["ensemble"]
            figures = {"accuracy": mixture.accuracy().mean(), "nll": mixture.nll().mean()}
            figures = {name: float(value) for name, value in figures.items()}
            of_heads.append({"heads": number, **figures, "ece": mixture.ece()[0]})
        return {"nfe": of_nfe, "heads": of_heads}

    def _named(
        self, prefix: str, heads: jax.Array, query: jax.Array, support: jax.Array, kinds: Any
    ) -> dict[str, Prediction]:
        top = min(self.config.sampling.top, len(heads))
        found = sampled(heads, query, support, top)
        names = {"top_support": f"top{top}_support", "top_query": f"top{top}_query"}
        return {f"{prefix}_{names.get(kind, kind)}": found[kind] for kind in kinds}


def _reconstruct(latents: LatentSpace, heads: jax.Array, prototypes: jax.Array) -> jax.Array:
    return latents.decode(latents.encode(heads, prototypes), prototypes)


def probe_settings(config: ConfigDict) -> dict[str, Any]:
    """How the probe is fitted, as `models.heads.fit_adamw` takes it."""
    names = ("steps", "learning_rate", "weight_decay", "use_bias")
    return {name: config.probe[name] for name in names}


def evaluate(evaluation: Evaluation, tasks: dict[str, TaskTable], seed: int) -> dict[str, Any]:
    """Rows of all methods on both sets, curves, and reliability data; test tasks are used here.

    Temperatures of `nll_tempered` are fitted on validation tasks.
    """
    fitted = {
        name: prediction.temperature()
        for name, prediction in evaluation.predictions(tasks["validation"], seed + 10).items()
    }
    rows, curves, diagrams = [], {}, {}
    for i, name in enumerate(SETS):
        predictions = evaluation.predictions(tasks[name], seed + 20 + i)
        rows += rows_of(predictions, references=REFERENCES, set_name=name, temperatures=fitted)
        curves[name] = evaluation.curves(tasks[name], seed + 30 + i)
        shown = ("linear_probe", "class_mean", "caml", "regression", "flown_mean", "flown_ensemble")
        diagrams[name] = {
            method: {
                "confidence": np.exp(predictions[method].log_probs.max(-1)).ravel()[:100_000],
                "right": (
                    predictions[method].log_probs.argmax(-1) == predictions[method].labels
                ).ravel()[:100_000],
            }
            for method in shown
        }
    return {
        "rows": rows,
        "curves": curves,
        "reliability": diagrams,
        "nfe": evaluation.nfe,
        "temperatures": fitted,
    }
