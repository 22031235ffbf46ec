"""Autoencoders and generators of their latents as configs have them: what commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flown_jax.data.pictures import Pictures
from flown_jax.encoders import pca
from flown_jax.encoders.codecs import tuples
from flown_jax.errors import UserError
from flown_jax.flow import diffusion, paths
from flown_jax.flow.couplings import get_coupling, independent
from flown_jax.meta_model.build import latent_space, velocity_of
from flown_jax.meta_model.keys import named_seed
from flown_jax.meta_model.latents import (
    LatentSpace,
    Standardiser,
    fit_latent_statistics,
    posterior_means,
)
from flown_jax.meta_model.mixing import Mixing
from flown_jax.networks.batches import ZooExamples, task_scales
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.joint import JointSpace

Weights = dict[str, np.ndarray]
_LOSS = ("reconstruction", "weights_weight", "kl_weight", "sigma_in", "sigma_lat", "task_weight")
_MIXING = tuple(field.name for field in dataclasses.fields(Mixing) if field.name != "normal")
PCA = "pca"
# What an autoencoder's codes are of: two controls beside the networks themselves.
MEMBERS, SHUFFLED, NORMAL = CODES = ("members", "shuffled", "normal")
_NORMAL_CODES = 4096  # that a flow learns from


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
        # The sizes of another network are other fields.
        other = field == "sizes" and {"form", "kind"} & set(changes)
        if isinstance(value, Mapping) and isinstance(config[field], ConfigDict) and not other:
            _change(config[field], value, f"{where}{field}.")
        elif other:
            config[field] = ConfigDict(value)
        else:
            config[field] = value


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
    options = {name: part[name] for name in _MIXING if name in part}
    if options.get("ball_weight"):
        found["middles"] = {name: own.weights.mean(0) for name, own in examples.items()}
    return {**found, "mixing": Mixing(**options, normal=codes_of(part) == NORMAL)}


def codes_of(part: ConfigDict) -> str:
    """What the codes of a codec are of, which its config or what counts of it says."""
    return part.get("codes", MEMBERS)


def coded(part: ConfigDict, weights: Weights, seed: int) -> Weights:
    """The networks that a codec reads: shuffled, no weight of a network knows of its others."""
    if codes_of(part) != SHUFFLED:
        return weights
    return {
        name: np.random.default_rng(named_seed(seed, SHUFFLED, name)).permuted(own, axis=0)
        for name, own in weights.items()
    }


def latent_values(
    target: NetworkSpace,
    form: dict[str, Any],
    module: Any,
    variables: Any,
    weights: Weights,
    normal_seed: int | None = None,
) -> dict[str, Any]:
    """Values of an autoencoder's stage: itself, and the training networks' latents.

    Args:
      normal_seed: of draws from N(0, I) in the place of latents.
    """
    means = {
        name: posterior_means(module, variables, target, own, OfSet(name))
        for name, own in weights.items()
    }
    if normal_seed is not None:
        rng = np.random.default_rng(named_seed(normal_seed, NORMAL))
        means = {
            name: rng.normal(size=(_NORMAL_CODES, *own.shape[1:])).astype(np.float32)
            for name, own in means.items()
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


def fit_components(context: StageContext) -> dict[str, Any]:
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


def schedule(part: ConfigDict) -> diffusion.Schedule:
    """The DDPM's."""
    return diffusion.linear_schedule(part.timesteps, part.beta_start, part.beta_end)
