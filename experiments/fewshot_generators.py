"""The trained stages of the few-shot experiment: autoencoders, CAML, the flow and its rivals."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from experiments.fewshot_stages import FewShot, Tables, recipe
from flown_jax.conditioning import CAML
from flown_jax.few_shot import losses, training
from flown_jax.few_shot.codec import HeadCodec, Standardiser
from flown_jax.few_shot.generator import Conditioner, LatentSpace
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.parts import build_codec, tuples
from flown_jax.few_shot.training import Examples
from flown_jax.flow import diffusion, paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.training.stages import StageContext, StageResult

CAML_SIZES = ("num_classes", "label_dim", "num_layers", "num_heads", "mlp_dim")
_CODEC_LOSS = ("reconstruction", "kl_weight", "sigma_in", "sigma_lat", "task_weight")


def caml_module(config: ConfigDict) -> CAML:
    """CAML without its variables."""
    return CAML(**{name: config.caml[name] for name in CAML_SIZES})


def train_caml(job: FewShot, tables: Tables) -> StageResult:
    """CAML on meta-train episodes; the best checkpoint on validation tasks of the main setting."""
    config, seed = job.config.caml, job.config.seed

    def function(context: StageContext) -> dict[str, Any]:
        variables = training.train_caml(
            context,
            caml_module(job.config),
            list(tables.train.values()),
            recipe(config),
            seed=seed,
            query=config.query,
            noise=config.noise,
            validate=tables.validation[job.settings[0]],
        )
        return {"variables": variables}

    return job.stage("caml", {"caml": config, "seed": seed, "tasks": tables.learned_from}, function)


@dataclasses.dataclass(frozen=True)
class Design:
    """A way to generate heads, out of finished stages and a part of the config.

    Attributes:
      name: "" for the main design; else it is appended to the stages' names.
      config: with `codec`, `velocity`, `flow` and `condition`.
      codec: finished stage. conditioner: of support features.
      latents: heads to latents and back. network: the velocity.
    """

    name: str
    config: ConfigDict
    codec: StageResult
    conditioner: Conditioner
    latents: LatentSpace
    network: nn.Module

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return tuple(self.codec.values["latent_shape"])

    def stage_name(self, part: str) -> str:
        """The name of a stage of this design."""
        return f"{part}-{self.name}" if self.name else part


class Designs:
    """Makes and trains designs on the same tasks and target heads."""

    def __init__(self, job: FewShot, tables: Tables, heads: StageResult, caml: StageResult) -> None:
        self.job, self.tables, self.heads, self.caml = job, tables, heads, caml
        self.examples: list[Examples] = job.examples(heads, tables)
        self.width = self.examples[0].heads.shape[-1] - 1

    def design(self, name: str, config: ConfigDict) -> Design:
        """A design with its weight autoencoder, trained."""
        module = build_codec(
            {"way": self.job.config.tasks.way, "codec": config.codec.to_dict()}, self.width
        )
        codec = self._train_codec(f"codec-{name}" if name else "codec", config.codec, module)
        values = jax.tree.map(jnp.asarray, codec.values)
        latents = LatentSpace(
            self.job.space(self.heads),
            values["variables"],
            Standardiser(**values["latents"]),
            module,
        )
        shape = tuple(codec.values["latent_shape"])
        sizes = tuples(config.velocity.sizes.to_dict())
        return Design(
            name,
            config,
            codec,
            self._conditioner(config.condition),
            latents,
            make_velocity(config.velocity.kind, shape, **sizes),
        )

    def _train_codec(self, name: str, config: ConfigDict, module: HeadCodec) -> StageResult:
        """The weight autoencoder and the statistics of its latents."""
        job, space = self.job, self.job.space(self.heads)

        def function(context: StageContext) -> dict[str, Any]:
            variables = training.train_codec(
                context,
                module,
                space,
                self.examples,
                recipe(config),
                seed=job.config.seed,
                query=job.config.tasks.train_query,
                **{name: config[name] for name in _CODEC_LOSS},
            )
            statistics = training.fit_latent_statistics(module, variables, space, self.examples)
            head = jax.ShapeDtypeStruct((1, *self.examples[0].heads.shape[1:]), jnp.float32)
            latent = jax.eval_shape(
                lambda v, h: module.apply(v, h, method="encode").mode(), variables, head
            )
            return {
                "variables": variables,
                "latents": {"mean": statistics.mean, "std": statistics.std},
                "latent_shape": list(latent.shape[1:]),
            }

        inputs = {
            "codec": config,
            "seed": job.config.seed,
            "heads": self.heads,
            "train_query": job.config.tasks.train_query,
        }
        return job.stage(name, inputs, function)

    def _conditioner(self, config: ConfigDict) -> Conditioner:
        """The condition of a task; recomputed, not stored."""
        return training.fit_conditioner(
            tuple(config.entries),
            list(self.tables.train.values()),
            caml_module(self.job.config),
            jax.tree.map(jnp.asarray, self.caml.values["variables"]),
            config.slot_tasks,
        )

    def flow(self, design: Design) -> StageResult:
        """The flow of a design, trained."""
        part, noise = design.config.flow, design.config.condition.noise
        source = get_source(part.source)

        def matching(params, key, batch, latents):
            return losses.flow_loss(
                design.network,
                params,
                key,
                batch,
                latents,
                path=paths.LinearPath(part.sigma),
                coupling=get_coupling(part.coupling),
                source=source,
                condition_noise=noise,
                task_weight=part.task_weight,
            )

        def through_the_solver(params, key, batch, latents):
            key_flow, key_ensemble = jax.random.split(key)
            value, metrics = matching(params, key_flow, batch, latents)
            ensemble, more = losses.ensemble_loss(
                design.network,
                params,
                key_ensemble,
                batch,
                latents,
                source=source,
                condition_noise=noise,
                members=part.ensemble.members,
                steps=part.ensemble.solver_steps,
            )
            value = part.ensemble.flow_weight * value + part.ensemble.weight * ensemble
            return value, {**metrics, **more}

        def function(context: StageContext) -> dict[str, Any]:
            params = self._train(context, design, matching, part)
            if part.ensemble.recipe.steps:
                params = self._train(
                    context,
                    design,
                    through_the_solver,
                    part.ensemble,
                    seed=1,
                    params=params,
                    name="flow-ensemble",
                )
            return {"params": params}

        return self._stage(design, "flow", part, function)

    def rivals(self, design: Design) -> dict[str, StageResult]:
        """A DDPM and a regression with the network, condition and decoder of the design."""
        config, noise = self.job.config, design.config.condition.noise

        def diffusion_loss(params, key, batch, latents):
            return losses.diffusion_loss(
                design.network,
                params,
                key,
                batch,
                latents,
                schedule=diffusion.iddpm_linear_schedule(config.ddpm.timesteps),
                condition_noise=noise,
                task_weight=config.ddpm.task_weight,
            )

        def regression_loss(params, key, batch, latents):
            return losses.regression_loss(
                design.network,
                params,
                key,
                batch,
                latents,
                condition_noise=noise,
                task_weight=config.regression.task_weight,
            )

        def trained(loss: Any, part: ConfigDict, context: StageContext) -> dict[str, Any]:
            return {"params": self._train(context, design, loss, part)}

        found = {"ddpm": diffusion_loss, "regression": regression_loss}
        return {
            name: self._stage(design, name, config[name], partial(trained, loss, config[name]))
            for name, loss in found.items()
        }

    def _train(
        self, context: StageContext, design: Design, loss: Any, part: ConfigDict, **more: Any
    ) -> Any:
        seed = self.job.config.seed
        batches = training.generator_batches(
            self.examples,
            design.conditioner,
            design.latents,
            seed=seed + more.pop("seed", 0),
            batch=part.recipe.batch,
            query=self.job.config.tasks.train_query,
            permute=design.config.flow.permute,
        )
        return training.train_generator(
            context,
            design.network,
            loss,
            batches,
            design.latents,
            recipe(part),
            seed=seed,
            input_shape=design.latent_shape,
            **more,
        )

    def _stage(self, design: Design, name: str, part: ConfigDict, function: Any) -> StageResult:
        inputs = {
            name: part,
            "velocity": design.config.velocity,
            "condition": design.config.condition,
            "permute": design.config.flow.permute,
            "train_query": self.job.config.tasks.train_query,
            "seed": self.job.config.seed,
            "codec_stage": design.codec,
            "caml_stage": self.caml if "caml" in design.config.condition.entries else None,
        }
        return self.job.stage(design.stage_name(name), inputs, function)
