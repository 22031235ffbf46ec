"""What is trained to generate: weight autoencoders, flows and diffusion in their latents."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.codec import counted, described
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
    latents_of,
    loss_options,
    matching,
    network_of,
    pairs,
    schedule,
)
from experiments.stages import Stages, recipe
from experiments.zoo_targets import ZOO, Target
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.build import codec_of
from flown_jax.meta_model.keys import named_key
from flown_jax.meta_model.latents import Standardiser
from flown_jax.meta_model.sampling import each_row, sample_diffusion, sample_flow
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.networks.batches import latent_batches, zoo_batches
from flown_jax.networks.space import NetworkSpace
from flown_jax.training.stages import StageContext, StageResult

_SHARED = ("target", "members", "concentration", "noise", "condition_noise")
_AT_ONCE = 25  # networks decoded


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """An autoencoder of a target's networks and what a generator of its latents is made of.

    Attributes:
      name: "" for the main design; else it stands behind the stages' names.
      config: the group of the target's kind, with what this design changes.
      codec: finished stage.
    """

    name: str
    target: Target
    config: ConfigDict
    codec: StageResult
    seed: int

    def stage_name(self, part: str) -> str:
        """The name of a stage of this design."""
        return "-".join([self.target.name, part, *[self.name] * bool(self.name)])


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Networks of a generator.

    Attributes:
      weights: (S, D).
      nfe: evaluations of a network that a sample took; None where there are none.
      training: seconds, of the autoencoder and the generator.
      sampling: seconds a network, without compilation.
    """

    weights: np.ndarray
    nfe: float | None = None
    training: float | None = None
    sampling: float | None = None


def make(stages: Stages, config: ConfigDict, target: Target, name: str = "") -> Design:
    """A design with its weight autoencoder, trained.

    Args:
      name: of the changes in the kind's `beside`; "" for none.
    """
    own = config[target.kind]
    of_target = config.targets[target.name]
    changes = own.beside[name] if name else of_target.design
    own = changed(own, changes.to_dict())
    if name and name in of_target.get("beside", {}):
        own = changed(own, of_target.beside[name].to_dict())
    inputs = {
        "codec": counted(own.codec),
        "seed": config.seed,
        "joint": target.joint,
        "weights": target.train,
        "base": target.base,
        "images": target.images if own.codec.task_weight else None,
    }
    stage = "-".join([target.name, "codec", *[name] * bool(name)])
    return Design(name, target, own, stages(stage, inputs, _train_codec), config.seed)


def _train_codec(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.codec
    weights = {ZOO.name: given.weights}
    read = coded(part, weights, given.seed)
    bases = None if given.base is None else {ZOO.name: given.base}
    target, form = NetworkSpace.fit(given.joint, weights, bases), described(part)
    module = codec_of(form, target)
    images = None if given.images is None else {ZOO.name: given.images}
    examples = examples_of(read, images)
    how = recipe(part)
    variables = train_codec(
        context,
        module,
        target,
        zoo_batches(examples, seed=given.seed, networks=how.batch, images=part.images),
        how,
        seed=given.seed,
        **loss_options(part, given.joint, examples),
    )
    normal = given.seed if codes_of(part) == NORMAL else None
    return latent_values(target, form, module, variables, read, normal)


def principal_components(stages: Stages, config: ConfigDict, target: Target) -> Design:
    """The design of a flow on principal components of the weights."""
    most = min(config.pca.components, len(target.train) - 1)
    weights = {ZOO.name: target.train}
    inputs = {"joint": target.joint, "weights": weights, "latent_shape": (most,)}
    codec = stages(f"{target.name}-codec-{PCA}", inputs, fit_components)
    return Design(PCA, target, config[target.kind], codec, config.seed)


def flow(stages: Stages, config: ConfigDict, design: Design) -> Generated:
    """Networks drawn by the flow of a design."""
    own, trained = design.config, flow_stage(stages, design)
    inputs = {
        "codec": design.codec,
        "generator": trained,
        "velocity": own.velocity,
        "source": own.flow.source,
        "sampling": config.sampling,
        "seed": design.seed,
    }
    drawn = stages(design.stage_name("samples"), inputs, _draw_flow)
    return generated(drawn, design.codec, trained)


def flow_stage(stages: Stages, design: Design) -> StageResult:
    """A stage: the velocity of a design, trained."""
    own = design.config
    learned = {"codec": design.codec, "velocity": own.velocity, "flow": own.flow}
    return stages(design.stage_name("flow"), {**learned, "seed": design.seed}, _train_flow)


def _train_flow(context: StageContext) -> dict[str, Any]:
    part = context.inputs.flow
    loss = partial(losses.flow_loss, source=get_source(part.source), **matching(part))
    return _train_generator(context, loss, part, whole=pairs(part))


def _draw_flow(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    options: dict[str, Any] = {
        "source": each_row(get_source(given.source)),
        "latent_shape": latent_shape(given.codec),
        "solver": given.sampling.solver,
        "steps": given.sampling.steps,
    }

    def draw(key: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        network = network_of(given.velocity, given.codec)
        return sample_flow(key, network, params, None, count=given.sampling.samples, **options)

    return drawn(context, draw)


def ddpm(stages: Stages, config: ConfigDict, design: Design) -> Generated:
    """Networks drawn by a DDPM in the latent of a design, on the same targets."""
    own = design.config
    shared = ConfigDict({name: value for name, value in own.flow.items() if name in _SHARED})
    part = ConfigDict({name: value for name, value in config.ddpm.items() if name != "steps"})
    learned = {"codec": design.codec, "velocity": own.velocity, "flow": shared, "ddpm": part}
    trained = stages(design.stage_name("ddpm"), {**learned, "seed": design.seed}, _train_ddpm)
    inputs = {
        "codec": design.codec,
        "generator": trained,
        "velocity": own.velocity,
        "ddpm": ConfigDict({name: v for name, v in config.ddpm.items() if name != "recipe"}),
        "samples": config.sampling.samples,
        "seed": design.seed,
    }
    drawn = stages(design.stage_name("samples-ddpm"), inputs, _draw_ddpm)
    return generated(drawn, design.codec, trained)


def _train_ddpm(context: StageContext) -> dict[str, Any]:
    part = context.inputs.ddpm
    return _train_generator(context, partial(losses.diffusion_loss, schedule=schedule(part)), part)


def _draw_ddpm(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    options: dict[str, Any] = {
        "schedule": schedule(given.ddpm),
        "latent_shape": latent_shape(given.codec),
        "steps": given.ddpm.steps,
    }

    def draw(key: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        network = network_of(given.velocity, given.codec)
        return sample_diffusion(key, network, params, None, count=given.samples, **options)

    return drawn(context, draw)


def _train_generator(
    context: StageContext, loss: Any, part: ConfigDict, **more: Any
) -> dict[str, Any]:
    given = context.inputs
    network, values, own = network_of(given.velocity, given.codec), given.codec.values, given.flow
    batch_at = latent_batches(
        values["means"],
        Standardiser(**values["statistics"]),
        None,
        seed=given.seed,
        batch=part.recipe.batch,
        target=own.target,
        members=own.members,
        concentration=own.concentration,
        noise=own.noise,
    )
    found = train_generator(
        context, network, partial(loss, network), batch_at, recipe(part), seed=given.seed, **more
    )
    return {"params": found}


def drawn(context: StageContext, draw: Any) -> dict[str, Any]:
    """Values of a stage of samples: networks, evaluations, seconds.

    Args:
      draw: (key, params) -> standardised latents (S, ...), evaluations.
    """
    given = context.inputs
    params = jax.tree.map(jnp.asarray, given.generator.values["params"])
    latents, run = latents_of(given.codec), jax.jit(draw)
    key = named_key(given.seed, context.name)
    decode = jax.jit(lambda z: latents.decode(z, ZOO))
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        z, nfe = run(key, params)
        parts = [decode(z[i : i + _AT_ONCE]) for i in range(0, len(z), _AT_ONCE)]
        weights = np.concatenate([np.asarray(part) for part in parts])
        seconds = (time.perf_counter() - start) / len(z)
    return {"weights": weights, "nfe": float(nfe), "seconds": seconds}


def generated(drawn: StageResult, *trained: StageResult) -> Generated:
    """The networks of a stage of samples, with the seconds of what they were trained by."""
    of = drawn.values
    seconds = sum(stage.seconds for stage in trained)
    return Generated(of["weights"], of["nfe"], seconds, of["seconds"])


def decoded(codec: StageResult, weights: np.ndarray) -> np.ndarray:
    """Networks (N, D) of the means of networks' latents (N, D)."""
    latents = latents_of(codec)
    through = jax.jit(lambda w: latents.decode(latents.encode(w, ZOO), ZOO))
    index = np.arange(-(-len(weights) // _AT_ONCE) * _AT_ONCE) % len(weights)
    parts = [np.asarray(through(weights[rows])) for rows in index.reshape(-1, _AT_ONCE)]
    return np.concatenate(parts)[: len(weights)]


def described_latents(codec: StageResult) -> SimpleNamespace:
    """Of an autoencoder's latents before they are standardised: how many numbers, how large."""
    means = codec.values["means"][ZOO.name]
    return SimpleNamespace(size=int(np.prod(means.shape[1:])), std=float(means.std(0).mean()))
