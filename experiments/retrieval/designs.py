"""Ways to generate networks: autoencoders of the zoos and the generators of their latents."""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from experiments.codec import counted, described, same_codec
from experiments.designs import (
    NORMAL,
    PCA,
    changed,
    coded,
    codes_of,
    examples_of,
    fit_components,
    latent_shape,
    latent_values,
    loss_options,
    matching,
    network_of,
    pairs,
    schedule,
)
from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages, recipe
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.build import codec_of
from flown_jax.meta_model.latents import (
    Standardiser,
)
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.networks.batches import (
    BatchAt,
    latent_batches,
    zoo_batches,
)
from flown_jax.networks.space import NetworkSpace
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.joint import JointSpace


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """An autoencoder of the zoos and what a generator of its latents is made of.

    Attributes:
      name: "" for the main design; else it is appended to the stages' names.
      config: the run's, with what this design changes.
      weights: the training networks of each set, as they are learned from.
      codec: finished stage. known: finished stage, the sets' conditions.
    """

    name: str
    config: ConfigDict
    weights: Weights
    codec: StageResult
    known: StageResult

    def stage_name(self, part: str) -> str:
        """The name of a stage of this design."""
        return f"{part}-{self.name}" if self.name else part

    def learned_from(self) -> dict[str, Any]:
        """What every generator depends on."""
        config = self.config
        return {
            "codec": self.codec,
            "conditions": self.known,
            "velocity": config.velocity,
            "flow": config.flow,
            "seed": config.seed,
        }

    def drawn_from(self, generator: StageResult) -> dict[str, Any]:
        """What draws of a generator depend on: what `draw` is given, but for a number of them."""
        config = self.config
        return {
            "codec": self.codec,
            "generator": generator,
            "conditions": self.known,
            "velocity": config.velocity,
            "source": config.flow.source,
            "sampling": {name: config.sampling[name] for name in ("solver", "steps")},
            "seed": config.seed,
        }


def make(
    stages: Stages,
    config: ConfigDict,
    data: Data,
    aligned: StageResult,
    known: StageResult,
    name: str = "",
    main: Design | None = None,
) -> Design:
    """A design with its weight autoencoder, trained.

    Args:
      name: of the changes in the config's `beside`; "" for none.
      main: the main design, whose autoencoder this one has where nothing of it is changed.
    """
    config = changed(config, config.beside[name].to_dict() if name else {})
    if main is not None and _same_codec(config, main.config):
        return Design(name, config, main.weights, main.codec, known)
    weights = aligned.values["train"] if config.alignment.encode else data.weights
    inputs = {
        "codec": counted(config.codec),
        "seed": config.seed,
        "joint": data.joint,
        "weights": weights,
        "images": data.pictures("train") if config.codec.task_weight else None,
    }
    codec = stages(f"codec-{name}" if name else "codec", inputs, _train_codec)
    return Design(name, config, weights, codec, known)


def _same_codec(config: ConfigDict, other: ConfigDict) -> bool:
    same = config.alignment.encode == other.alignment.encode
    return same and same_codec(config.codec, other.codec)


def _train_codec(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.codec
    target = NetworkSpace.fit(given.joint, given.weights)
    form = described(part)
    module = codec_of(form, target)
    weights = coded(part, given.weights, given.seed)
    examples = examples_of(weights, given.images)
    variables = train_codec(
        context,
        module,
        target,
        zoo_batches(examples, seed=given.seed, networks=part.networks, images=part.images),
        dataclasses.replace(recipe(part), batch=part.networks * len(examples)),
        seed=given.seed,
        **loss_options(part, given.joint, examples),
    )
    normal = given.seed if codes_of(part) == NORMAL else None
    return latent_values(target, form, module, variables, weights, normal)


def principal_components(stages: Stages, like: Design, joint: JointSpace) -> Design:
    """The design with PCA of the same latent size in the place of the autoencoder."""
    inputs = {"joint": joint, "weights": like.weights, "latent_shape": latent_shape(like.codec)}
    codec = stages(f"codec-{PCA}", inputs, fit_components)
    return Design(PCA, like.config, like.weights, codec, like.known)


def flow(stages: Stages, design: Design) -> StageResult:
    """The flow of a design, trained."""
    return stages(design.stage_name("flow"), design.learned_from(), _train_flow)


def _train_flow(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.flow
    loss = partial(losses.flow_loss, source=get_source(part.source), **matching(part))
    return _train_generator(context, loss, given.flow, whole=pairs(part))


def ddpm(stages: Stages, design: Design) -> StageResult:
    """The rival of the flow in the same latents, on the same targets and conditions."""
    shown = {name: value for name, value in design.config.flow.items() if name in _SHARED}
    inputs = {**design.learned_from(), "flow": ConfigDict(shown)}
    part = ConfigDict({k: v for k, v in design.config.ddpm.items() if k != "steps"})
    return stages(design.stage_name("ddpm"), {**inputs, "ddpm": part}, _train_ddpm)


_SHARED = ("target", "members", "concentration", "noise", "condition_noise")


def _train_ddpm(context: StageContext) -> dict[str, Any]:
    part, noise = context.inputs.ddpm, context.inputs.flow.condition_noise
    loss = partial(losses.diffusion_loss, schedule=schedule(part), condition_noise=noise)
    return _train_generator(context, loss, part)


def _train_generator(
    context: StageContext, loss: Any, part: ConfigDict, **more: Any
) -> dict[str, Any]:
    given = context.inputs
    network, values = network_of(given.velocity, given.codec), given.codec.values
    batch_at = batches_of(given, values["means"], Standardiser(**values["statistics"]), part)
    found = train_generator(
        context, network, partial(loss, network), batch_at, recipe(part), seed=given.seed, **more
    )
    return {"params": found}


def batches_of(
    given: SimpleNamespace, values: Weights, statistics: Standardiser, part: ConfigDict
) -> BatchAt:
    """Batches of a generator: values (N, ...) of the sets' networks, with their conditions.

    Args:
      given: inputs of a stage, see `Design.learned_from`. part: of the config, with the recipe.
    """
    flow = given.flow
    return latent_batches(
        values,
        statistics,
        given.conditions.values["train"],
        seed=given.seed,
        batch=part.recipe.batch,
        target=flow.target,
        members=flow.members,
        concentration=flow.concentration,
        noise=flow.noise,
    )
