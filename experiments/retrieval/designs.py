"""Ways to generate networks: autoencoders of the zoos and the generators of their latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.codec import counted, described
from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages, recipe
from flown_jax.data.pictures import Pictures
from flown_jax.encoders import pca
from flown_jax.encoders.codecs import tuples
from flown_jax.errors import UserError
from flown_jax.flow import diffusion, paths
from flown_jax.flow.couplings import get_coupling, independent
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.build import codec_of, latent_space, velocity_of
from flown_jax.meta_model.latents import (
    LatentSpace,
    Standardiser,
    fit_latent_statistics,
    posterior_means,
)
from flown_jax.meta_model.mixing import Mixing
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.networks.batches import (
    BatchAt,
    ZooExamples,
    latent_batches,
    task_scales,
    zoo_batches,
)
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.joint import JointSpace

_LOSS = ("reconstruction", "weights_weight", "kl_weight", "sigma_in", "sigma_lat", "task_weight")
_MIXING = tuple(field.name for field in dataclasses.fields(Mixing))
PCA = "pca"


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


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The run's config with some of its fields changed, as nested dictionaries name them.

    Raises:
      UserError: a change of a field that there is not.
    """
    found = config.copy_and_resolve_references()
    found.unlock()
    _change(found, changes, "")
    return found


def _change(config: ConfigDict, changes: Mapping[str, Any], where: str) -> None:
    for field, value in changes.items():
        if field not in config:
            raise UserError(f"beside changes {where}{field}, and there is no such field.")
        if isinstance(value, Mapping) and isinstance(config[field], ConfigDict):
            _change(config[field], value, f"{where}{field}.")
        else:
            config[field] = value


def make(
    stages: Stages,
    config: ConfigDict,
    data: Data,
    aligned: StageResult,
    known: StageResult,
    name: str = "",
) -> Design:
    """A design with its weight autoencoder, trained.

    Args:
      name: of the changes in the config's `beside`; "" for none.
    """
    config = changed(config, config.beside[name].to_dict() if name else {})
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


def _train_codec(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.codec
    target = NetworkSpace.fit(given.joint, given.weights)
    form = described(part)
    module = codec_of(form, target)
    examples = examples_of(given.weights, given.images)
    variables = train_codec(
        context,
        module,
        target,
        zoo_batches(examples, seed=given.seed, networks=part.networks, images=part.images),
        recipe(part),
        seed=given.seed,
        **loss_options(part, given.joint, examples),
    )
    return latent_values(target, form, module, variables, given.weights)


def examples_of(weights: Weights, images: Mapping[str, Pictures] | None) -> dict[str, ZooExamples]:
    """Training networks, with images where there is a task loss."""
    if images is None:
        return {name: ZooExamples(own) for name, own in weights.items()}
    return {
        name: ZooExamples(own, images[name].inputs, images[name].labels)
        for name, own in weights.items()
    }


def loss_options(
    part: ConfigDict, joint: JointSpace, examples: Mapping[str, ZooExamples]
) -> dict[str, Any]:
    """What `losses.codec_loss` takes of a codec's config."""
    found = {name: part[name] for name in _LOSS}
    if part.task_weight and part.task_balance:
        found["task_scales"] = task_scales(joint, examples, part.task_balance)
    return {**found, "mixing": Mixing(**{name: part[name] for name in _MIXING})}


def latent_values(
    target: NetworkSpace, form: dict[str, Any], module: Any, variables: Any, weights: Weights
) -> dict[str, Any]:
    """Values of an autoencoder's stage: itself, and the training networks' latents."""
    means = {
        name: posterior_means(module, variables, target, own, OfSet(name))
        for name, own in weights.items()
    }
    statistics = fit_latent_statistics(module, means.values())
    description, arrays = target.describe()
    return {
        "module": form,
        "target": {"description": description, "arrays": arrays},
        "variables": variables,
        "means": means,
        "statistics": {"mean": statistics.mean, "std": statistics.std},
    }


def principal_components(stages: Stages, like: Design, joint: JointSpace) -> Design:
    """The design with PCA of the same latent size in the place of the autoencoder."""
    inputs = {"joint": joint, "weights": like.weights, "latent_shape": latent_shape(like.codec)}
    codec = stages(f"codec-{PCA}", inputs, _fit_components)
    return Design(PCA, like.config, like.weights, codec, like.known)


def _fit_components(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    target = NetworkSpace.fit(given.joint, given.weights)
    x1 = [np.asarray(target.normalise(w, OfSet(name))) for name, w in given.weights.items()]
    found = pca.fit(np.concatenate(x1), given.latent_shape, pad=True)
    form = {"form": PCA, "sizes": {"latent_shape": list(given.latent_shape)}}
    values = latent_values(target, form, pca.PCAModule(), found, given.weights)
    arrays = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    del arrays["latent_shape"]
    return {**values, "variables": arrays}


def latent_shape(codec: StageResult) -> tuple[int, ...]:
    """Of one latent of a finished autoencoder."""
    return next(iter(codec.values["means"].values())).shape[1:]


def latents_of(codec: StageResult) -> LatentSpace:
    """Networks to latents and back, of a finished autoencoder."""
    of, target = codec.values, codec.values["target"]
    space = NetworkSpace.build(target["description"], jax.tree.map(jnp.asarray, target["arrays"]))
    if of["module"]["form"] != PCA:
        return latent_space(space, of["variables"], of["statistics"], of["module"])
    variables, statistics = jax.tree.map(jnp.asarray, (of["variables"], of["statistics"]))
    fitted = pca.PCACodec(**variables, **tuples(of["module"]["sizes"]))
    return LatentSpace(space, fitted, Standardiser(**statistics), pca.PCAModule())


def network_of(velocity: ConfigDict, codec: StageResult) -> Any:
    """The velocity of a finished autoencoder's latents."""
    return velocity_of(velocity, latent_shape(codec))


def flow(stages: Stages, design: Design) -> StageResult:
    """The flow of a design, trained."""
    return stages(design.stage_name("flow"), design.learned_from(), _train_flow)


def _train_flow(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.flow
    loss = partial(losses.flow_loss, source=get_source(part.source), **matching(part))
    return _train_generator(context, loss, given.flow, whole=pairs(part))


def pairs(part: ConfigDict) -> bool:
    """Whether a flow's loss looks at its batch as a whole."""
    return get_coupling(part.coupling) is not independent


def matching(part: ConfigDict) -> dict[str, Any]:
    """What every loss of a flow takes of its config, but for the source."""
    return {
        "path": paths.LinearPath(part.sigma),
        "coupling": get_coupling(part.coupling),
        "condition_noise": part.condition_noise,
    }


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


def schedule(part: ConfigDict) -> diffusion.Schedule:
    """The DDPM's."""
    return diffusion.linear_schedule(part.timesteps, part.beta_start, part.beta_end)


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
