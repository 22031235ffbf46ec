"""Every method of the few-shot table on tasks of one setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fewshot.designs import latents_of, network_of, schedule
from experiments.tasks import caml_of, conditioner_of
from flown_jax.evaluation.classification import index_of_best
from flown_jax.evaluation.predictions import Prediction
from flown_jax.few_shot import sampling
from flown_jax.few_shot.evaluation import mixed_with_head, sampled, single
from flown_jax.few_shot.selection import choose_temperature
from flown_jax.few_shot.target_heads import fit_heads
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.build import build
from flown_jax.meta_model.caml_training import caml_log_probs
from flown_jax.meta_model.condition import Conditioner
from flown_jax.meta_model.keys import named_key
from flown_jax.meta_model.sampling import sample_diffusion, sample_flow
from flown_jax.models import heads as linear
from flown_jax.models.logistic import fit_logistic
from flown_jax.training.parallel import share_out, spread

# What is made of the heads of a design beside, and of a rival in the main one's latents.
_KINDS = (("mean", "ensemble"), ("mean", "ensemble", "top_support"))
_CHOOSING = 20  # heads a task while a temperature is chosen
# Steps of the DDPM then; on three seeds 25 put temperatures in the order in which 100 put them.
_CHOOSING_STEPS = 25


class Methods:
    """Predictions of all methods; each program is compiled once.

    Args:
      given: the inputs of an evaluation, see `measure.evaluation_stage`.
    """

    def __init__(self, given: SimpleNamespace) -> None:
        self.given, self.samples = given, int(given.sampling["samples"])
        self.nfe: dict[str, float] = {}
        self.caml, self.caml_weight = caml_of(given.caml), 1.0
        parts = build(given.model.values["description"], given.model.values["arrays"])
        self.parts = parts
        self.network = {
            "network": parts.velocity,
            "latents": parts.latents,
            "latent_shape": tuple(parts.description["latent_shape"]),
        }
        self.draw = jax.jit(sampling.draw_heads, static_argnames=("samples", "solver", "steps"))
        self._condition = jax.jit(Conditioner.__call__)
        self.samplers = {"ddpm": self._ddpm(given.ddpm["steps"])}
        for name, of in given.beside.items():
            if (sampler := self._beside(of)) is not None:
                self.samplers[name] = sampler
        self.temperatures = dict.fromkeys(self.samplers, 1.0)
        static = ("network", "latent_shape")
        self._regress = jax.jit(sampling.regress_heads, static_argnames=static)
        noisy = sampling.regress_noisy_heads
        self._regress_noisy = jax.jit(noisy, static_argnames=(*static, "samples"))
        self._reconstruct = jax.jit(sampling.reconstruct_heads)
        self._base = jax.jit(sampling.base_heads)

    def predictions(self, table: TaskTable, name: str) -> dict[str, Prediction]:
        """Predictions of all methods on the tasks of a table, in the order of the results.

        Tasks go through in parts of one size, so that all sets run the same programs.

        Args:
          name: of the table; another one has other draws.
        """
        size = math.gcd(len(table), 100) if len(table) % 100 else 100

        def part(start: int) -> dict[str, np.ndarray]:
            made = self._part(table.take(slice(start, start + size)), (name, start))
            return {method: prediction.log_probs for method, prediction in made.items()}

        parts = share_out(part, range(0, len(table), size))
        return {
            method: Prediction(np.concatenate([one[method] for one in parts], axis=1))
            for method in parts[0]
        }

    def condition(self, support: jax.Array) -> dict[str, jax.Array]:
        """What the meta-model's flow sees of support features (T, n, k, F)."""
        return self._condition(self.parts.conditioner, support)

    def choose(self, validation: TaskTable) -> None:
        """CAML's weight and the rivals' temperatures, by validation tasks.

        The meta-model's own temperature was chosen in the same way when it was assembled.
        """
        self._choose_caml_weight(validation)
        support = spread(validation.support())
        count = min(_CHOOSING, self.samples)
        few = {"ddpm": self._ddpm(min(_CHOOSING_STEPS, self.given.ddpm["steps"]))}
        grid = tuple(self.given.temperatures)
        if len(grid) == 1:  # no draws where there is nothing to choose
            self.temperatures = dict.fromkeys(self.samplers, float(grid[0]))
            return
        for name, sampler in {**self.samplers, **few}.items():
            at = partial(sampler, self.key("choice", name), support, samples=count)
            found = choose_temperature(at, validation, grid)
            self.temperatures[name] = found["temperature"]

    def key(self, *names: str | int) -> jax.Array:
        """The key of draws; every row, set and setting has its own."""
        return named_key(self.given.seed, self.given.setting, *names)

    def _part(self, table: TaskTable, place: tuple[str, int]) -> dict[str, Prediction]:
        support, query = spread((table.support(), table.query()))
        made = self._baselines(table, support, query)
        condition = self.condition(support)
        regression = {**self.network, "params": self.given.regression.values["params"]}
        shown = {"condition": condition, "support": support}
        made["regression"] = single(self._regress(**regression, **shown), query)
        if noise := self.given.noise:
            noisy = self._regress_noisy(
                **regression,
                **shown,
                key=self.key(*place, "regression_noisy"),
                noise=noise,
                samples=self.samples,
            )
            made["regression_noisy_ensemble"] = sampled(noisy, query, support, 1)["ensemble"]
        for name, sampler in self.samplers.items():
            main = name == "ddpm"
            heads, nfe = sampler(
                self.key(*place, name),
                support,
                samples=min(self.given.ddpm["samples"], self.samples) if main else self.samples,
                temperature=self.temperatures[name],
            )
            self.nfe[name] = round(float(nfe), 1)
            made |= self._named(name, heads, query, support, _KINDS[name == "ddpm"])
        temperature = self.given.chosen["temperature"]
        heads, nfe = self.draw(
            self.parts,
            self.key(*place, "flown"),
            support,
            condition=condition,
            samples=self.samples,
            temperature=temperature,
        )
        self.nfe["flown"] = round(float(nfe), 1)
        made |= self._named("flown", heads, query, support, (*_KINDS[True], "top_query"))
        other = jnp.roll(support, 1, axis=0)
        heads, _ = self.draw(
            self.parts,
            self.key(*place, "flown_other_support"),
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
        (tasks, way, count), chosen = query.shape[:3], self.given.chosen
        of_probe = jnp.asarray(fit_heads(table, length=chosen["length"], **self.given.probe))
        logistic = fit_logistic(table.support(), inverse_penalty=chosen["inverse_penalty"])
        made = {
            "chance": Prediction(np.full((1, tasks, way * count, way), -np.log(way))),
            "class_mean": single(linear.class_mean(support), query),
            "cosine_class_mean": single(linear.cosine_class_mean(support), query),
            "linear_probe": single(of_probe, query),
            "ridge": single(linear.ridge(support, l2=chosen["l2"]), query),
            "logistic_regression": single(jnp.asarray(logistic), query),
        }
        latents = self.parts.latents
        if latents.codec.by_class or latents.codec.way == way:
            scaled = of_probe / chosen["target_temperature"]
            made["vae_reconstruction"] = single(self._reconstruct(latents, scaled, support), query)
        if way <= self.caml[0].num_classes:
            made["caml"] = self._caml(table)
            if self.given.has_base:
                made["caml_and_base"] = mixed_with_head(
                    made["caml"], self._base(latents, support), query, self.caml_weight
                )
        return made

    def _caml(self, table: TaskTable) -> Prediction:
        return Prediction(caml_log_probs(*self.caml, table.support(), table.query())[None])

    def _choose_caml_weight(self, validation: TaskTable) -> None:
        """The weight of the base head's logits beside CAML with the best validation accuracy."""
        if validation.episodes.classes.shape[1] > self.caml[0].num_classes:
            return
        alone, query = self._caml(validation), jnp.asarray(validation.query())
        base = self._base(self.parts.latents, jnp.asarray(validation.support()))
        mixed = {w: mixed_with_head(alone, base, query, w) for w in self.given.base_weights}
        scores = [prediction.accuracy().mean() for prediction in mixed.values()]
        self.caml_weight = list(mixed)[index_of_best(scores)]

    def _ddpm(self, steps: int) -> Callable[..., Any]:
        """(key, support, samples, temperature) -> heads and evaluations of the DDPM."""
        given, parts = self.given, self.parts
        options: dict[str, Any] = {"schedule": schedule(given.ddpm["timesteps"]), "steps": steps}
        sample = partial(sample_diffusion, network=parts.velocity, **options)
        shape = tuple(parts.description["latent_shape"])
        params = given.ddpm_stage.values["params"]
        return self._sampler(sample, params, parts.latents, parts.conditioner, shape)

    def _beside(self, of: Mapping[str, Any]) -> Callable[..., Any] | None:
        """The same of another design, where it makes heads of this many classes."""
        latents, given = latents_of(of["codec"], self.given.heads), self.given
        if not latents.codec.by_class and latents.codec.way != given.way:
            return None
        options = {name: given.sampling[name] for name in ("solver", "steps")}
        network = network_of(of["velocity"], of["codec"])
        conditioner = conditioner_of(of["condition"], given.train, of["caml"])
        shape = tuple(of["codec"].values["latent_shape"])
        source = get_source(of["source"]).trained_on(shape)
        sample = partial(sample_flow, network=network, source=source, **options)
        return self._sampler(sample, of["flow"].values["params"], latents, conditioner, shape)

    def _sampler(
        self, sample: Any, params: Any, latents: Any, conditioner: Any, shape: tuple[int, ...]
    ) -> Callable[..., Any]:
        static = ("sample", "latent_shape", "samples")
        draw = jax.jit(sampling.draw_heads_with, static_argnames=static)

        def sampler(key: jax.Array, support: jax.Array, **more: Any) -> Any:
            known = self._condition(conditioner, support)
            options = {"sample": sample, "latent_shape": shape}
            return draw(key, params, latents, known, support, **options, **more)

        return sampler

    def _named(
        self, prefix: str, heads: jax.Array, query: jax.Array, support: jax.Array, kinds: Any
    ) -> dict[str, Prediction]:
        top = min(self.given.sampling["top"], len(heads))
        found = sampled(heads, query, support, top)
        names = {"top_support": f"top{top}_support", "top_query": f"top{top}_query"}
        return {f"{prefix}_{names.get(kind, kind)}": found[kind] for kind in kinds}
