"""What the few-shot experiment measures on its tasks: every method of the table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.fewshot_generators import Design
from experiments.fewshot_settings import Setting
from experiments.fewshot_stages import PROBE, Tables
from flown_jax.conditioning import CAML
from flown_jax.few_shot.evaluation import Prediction, mixed_with_head, rows_of, sampled, single
from flown_jax.few_shot.generator import (
    Conditioner,
    LatentSpace,
    regress,
    sample_diffusion,
    sample_flow,
)
from flown_jax.few_shot.logistic import fit_logistic
from flown_jax.few_shot.losses import noisy_condition
from flown_jax.few_shot.parts import Parts
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.few_shot.training import caml_log_probs, fit_heads
from flown_jax.flow import diffusion
from flown_jax.flow.sources import get_source
from flown_jax.models import heads as linear

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


@dataclasses.dataclass(frozen=True)
class Trained:
    """Everything that is measured beside the flow.

    Attributes:
      parts: the meta-model.
      ddpm, regression: parameters of the rivals, of the meta-model's network.
      caml: module and variables.
      beside: further designs by name, each with the parameters of its flow.
    """

    parts: Parts
    ddpm: Any
    regression: Any
    caml: tuple[CAML, Any]
    beside: Mapping[str, tuple[Design, Any]]


class Evaluation:
    """Every method of the table on tasks of one setting; each program is compiled once.

    Args:
      config: of the run. trained: what it trained.
      chosen: of this setting on validation tasks: `length`, `l2`, `inverse_penalty`,
        `temperature`, and the targets' own temperature for this many images, `target_temperature`.
    """

    def __init__(
        self, config: ConfigDict, setting: Setting, trained: Trained, chosen: Mapping[str, Any]
    ) -> None:
        self.config, self.setting, self.trained, self.chosen = config, setting, trained, chosen
        self.nfe: dict[str, float] = {}
        self.caml_weight = 1.0
        self.samples = config.sampling.samples
        parts = trained.parts
        # Arrays are arguments of the compiled programs, never constants inside of them.
        self.condition = partial(jax.jit(Conditioner.__call__), parts.conditioner)
        self.base = partial(jax.jit(_base), parts.latents)
        self.draw = partial(
            jax.jit(Parts.sample, static_argnames=("samples", "solver", "steps")), parts
        )
        self.latent_shape = parts.latent_shape
        if parts.latents.codec.by_class:
            self.latent_shape = (setting.way, *parts.latent_shape[1:])
        self.reconstruct = partial(jax.jit(_reconstruct), parts.latents)
        self.regress = partial(
            jax.jit(regress, static_argnums=(0, 5)), parts.velocity, trained.regression
        )
        self.regress_noisy = partial(
            jax.jit(_noisy_regression, static_argnums=(0, 5), static_argnames=("samples",)),
            parts.velocity,
            trained.regression,
        )
        self.draw_ddpm = partial(
            jax.jit(
                sample_diffusion,
                static_argnums=1,
                static_argnames=("schedule", "latent_shape", "samples", "steps"),
            ),
            schedule=diffusion.iddpm_linear_schedule(config.ddpm.timesteps),
            latent_shape=self.latent_shape,
            samples=min(config.ddpm.samples, self.samples),
            steps=config.ddpm.steps,
        )
        self.draw_beside = jax.jit(
            sample_flow,
            static_argnums=1,
            static_argnames=("source", "latent_shape", "samples", "solver", "steps"),
        )

    def predictions(self, table: TaskTable, seed: int) -> dict[str, Prediction]:
        """Predictions of all methods on the tasks of a table, in the order of the results.

        Tasks go through in parts of one size, so that all sets run the same programs.
        """
        size = math.gcd(len(table), 100) if len(table) % 100 else 100
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
        support, query = jnp.asarray(table.support()), jnp.asarray(table.query())
        made = self._baselines(table, support, query)
        condition, base = self.condition(support), self.base(support)
        inputs = (self.trained.parts.latents, condition, base, self.latent_shape)
        made["regression"] = single(self.regress(*inputs), query)
        if noise := self.config.condition.noise:
            noisy = self.regress_noisy(
                *inputs, key_other, noise, self.setting.shot, samples=min(20, self.samples)
            )
            made["regression_noisy_ensemble"] = sampled(noisy, query, support, 1)["ensemble"]
        heads, nfe = self.draw_ddpm(
            key_ddpm, self.trained.parts.velocity, self.trained.ddpm, *inputs[:3]
        )
        self.nfe["ddpm"] = round(float(nfe), 1)
        made |= self._named("ddpm", heads, query, support, ("mean", "ensemble", "top_support"))
        for name, (design, params) in self.trained.beside.items():
            made |= self._beside(name, design, params, key_flow, support, query)
        temperature = self.chosen["temperature"]
        heads, nfe = self.draw(
            key_flow, support, condition=condition, samples=self.samples, temperature=temperature
        )
        self.nfe["flown"] = round(float(nfe), 1)
        kinds = ("mean", "ensemble", "top_support", "top_query")
        made |= self._named("flown", heads, query, support, kinds)
        other = jnp.roll(support, 1, axis=0)
        heads, _ = self.draw(
            key_other,
            other,
            condition=self.condition(other),
            samples=min(10, self.samples),
            temperature=temperature,
        )
        made["flown_other_support"] = sampled(heads, query, support, 1)["mean"]
        return made

    def _baselines(
        self, table: TaskTable, support: jax.Array, query: jax.Array
    ) -> dict[str, Prediction]:
        """What uses the support alone, and CAML."""
        tasks, way, count = query.shape[:3]
        chosen = self.chosen
        probe = {name: self.config.probe[name] for name in PROBE}
        of_probe = jnp.asarray(fit_heads(table, length=chosen["length"], **probe))
        logistic = fit_logistic(table.support(), inverse_penalty=chosen["inverse_penalty"])
        made = {
            "chance": Prediction(np.full((1, tasks, way * count, way), -np.log(way))),
            "class_mean": single(linear.class_mean(support), query),
            "cosine_class_mean": single(linear.cosine_class_mean(support), query),
            "linear_probe": single(of_probe, query),
            "ridge": single(linear.ridge(support, l2=chosen["l2"]), query),
            "logistic_regression": single(jnp.asarray(logistic), query),
        }
        if self._way_is_coded:
            scaled = of_probe / chosen["target_temperature"]
            decoded = self.reconstruct(scaled, self.base(support))
            made["vae_reconstruction"] = single(decoded, query)
        if way <= self.trained.caml[0].num_classes:
            made["caml"] = Prediction(caml_log_probs(*self.trained.caml, table)[None])
            if self.config.targets.base_scales:
                made["caml_and_base"] = mixed_with_head(
                    made["caml"], self.base(support), query, self.caml_weight
                )
        return made

    @property
    def _way_is_coded(self) -> bool:
        codec = self.trained.parts.latents.codec
        return codec.by_class or codec.way == self.setting.way

    def _beside(
        self,
        name: str,
        design: Design,
        params: Any,
        key: jax.Array,
        support: jax.Array,
        query: jax.Array,
    ) -> dict[str, Prediction]:
        """The averaged heads of another design, where it makes heads of this many classes."""
        if not design.latents.codec.by_class and design.latents.codec.way != self.setting.way:
            return {}
        shape = design.latent_shape
        if design.latents.codec.by_class:
            shape = (self.setting.way, *shape[1:])
        condition = jax.jit(Conditioner.__call__)(design.conditioner, support)
        heads, nfe = self.draw_beside(
            key,
            design.network,
            params,
            design.latents,
            condition,
            self.base(support),
            source=get_source(design.config.flow.source),
            latent_shape=shape,
            samples=min(20, self.samples),
            solver=self.config.sampling.solver,
            steps=self.config.sampling.steps,
            temperature=1.0,
        )
        self.nfe[name] = round(float(nfe), 1)
        return {f"{name}_ensemble": sampled(heads, query, support, 1)["ensemble"]}

    def choose_caml_weight(self, validation: TaskTable) -> None:
        """The weight of the base head's logits beside CAML with the best validation accuracy."""
        module, variables = self.trained.caml
        if validation.episodes.classes.shape[1] > module.num_classes:
            return
        alone = Prediction(caml_log_probs(module, variables, validation)[None])
        base = self.base(jnp.asarray(validation.support()))
        query = jnp.asarray(validation.query())
        mixed = {w: mixed_with_head(alone, base, query, w) for w in self.config.caml.base_weights}
        self.caml_weight = max(mixed, key=lambda w: mixed[w].accuracy().mean())

    def curves(self, table: TaskTable, seed: int) -> dict[str, Any]:
        """Accuracy and likelihood against function evaluations, and against heads averaged."""
        table = table.take(slice(0, self.config.sampling.curve_tasks))
        support, query = jnp.asarray(table.support()), jnp.asarray(table.query())
        condition, key = self.condition(support), jax.random.key(seed)
        common = {"condition": condition, "temperature": self.chosen["temperature"]}
        count = self.config.sampling.curve_samples
        of_nfe = []
        for steps in self.config.sampling.nfe_curve:
            heads, nfe = self.draw(
                key, support, solver="euler", steps=steps, samples=count, **common
            )
            found = sampled(heads, query, support, min(self.config.sampling.top, count))
            accuracies = {kind: float(p.accuracy().mean()) for kind, p in found.items()}
            nll = float(found["ensemble"].nll().mean())
            of_nfe.append({"nfe": round(float(nfe), 1), **accuracies, "nll": nll})
        heads, _ = self.draw(key, support, samples=self.samples, **common)
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


def _base(latents: LatentSpace, support: jax.Array) -> jax.Array:
    return latents.space.base(support.mean(2), support.shape[2])


def _reconstruct(latents: LatentSpace, heads: jax.Array, base: jax.Array) -> jax.Array:
    return latents.decode(latents.encode(heads, base), base)


def _noisy_regression(
    network: Any,
    params: Any,
    latents: LatentSpace,
    condition: Any,
    base: jax.Array,
    latent_shape: tuple[int, ...],
    key: jax.Array,
    noise: float,
    shot: int,
    *,
    samples: int,
) -> jax.Array:
    """Regressed heads of conditions with the training noise, (S, T, n, F + 1).

    What separates a generator from a regression that is made random in the cheapest way.
    """

    def draw(key: jax.Array) -> jax.Array:
        noisy = noisy_condition(key, condition, noise, shot)
        return regress(network, params, latents, noisy, base, latent_shape)

    return jax.lax.map(draw, jax.random.split(key, samples))


def evaluate(evaluation: Evaluation, tables: Tables, seed: int, *, curves: bool) -> dict[str, Any]:
    """Rows of all methods on every set of one setting; test tasks are used here.

    Temperatures of `nll_tempered` are fitted on validation tasks.

    Args:
      curves: whether curves and reliability data are wanted too.
    """
    setting = evaluation.setting
    evaluation.choose_caml_weight(tables.validation[setting])
    fitted = {
        name: prediction.temperature()
        for name, prediction in evaluation.predictions(
            tables.validation[setting], seed + 10
        ).items()
    }
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    diagrams: dict[str, Any] = {}
    for i, (name, of_setting) in enumerate(tables.test.items()):
        predictions = evaluation.predictions(of_setting[setting], seed + 20 + i)
        references = {k: v for k, v in REFERENCES.items() if v in predictions}
        rows += rows_of(
            predictions,
            references=references,
            set_name=name,
            table=setting.name,
            temperatures=fitted,
        )
        if not curves:
            continue
        found[name] = evaluation.curves(of_setting[setting], seed + 30 + i)
        diagrams[name] = {
            method: {
                "confidence": np.exp(predictions[method].log_probs.max(-1)).ravel()[:100_000],
                "right": (
                    predictions[method].log_probs.argmax(-1) == predictions[method].labels
                ).ravel()[:100_000],
            }
            for method in SHOWN
            if method in predictions
        }
    return {
        "rows": rows,
        "curves": found,
        "reliability": diagrams,
        "nfe": evaluation.nfe,
        "caml_weight": evaluation.caml_weight,
        "temperatures": fitted,
    }
