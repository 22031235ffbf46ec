"""Rows that are no model: what is made of a zoo's networks by arithmetic, or by training on."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.trajectory import variants as trajectories
from experiments.fresh import fresh_networks
from experiments.stages import Stages
from experiments.zoo_generators import Generated
from experiments.zoo_targets import SEEDS, Target, trajectory_of
from flown_jax.evaluation.vectors import predictions
from flown_jax.meta_model.keys import named_key, named_seed
from flown_jax.networks import rivals
from flown_jax.networks.starts import random_starts
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.tuning import Training, train_starts

AVERAGE, RANDOM = "average_of_two", "kaiming"


def untrained(stages: Stages, config: ConfigDict, target: Target) -> dict[str, Generated]:
    """Method -> networks, of the methods that train nothing."""
    part, train, count = config.rivals, target.train, config.sampling.samples
    images = None  # units are matched on
    if target.cnn:
        images = target.images.preprocessing.apply(
            target.images.images[: config.evaluation.matching_images]
        )

    def seed(method: str) -> int:
        return named_seed(config.seed, method, target.name)

    found = {
        "average_of_all": train.mean(0, keepdims=True),
        f"average_of_{part.averaged}": rivals.averages_of(
            seed("averages"),
            train,
            count,
            part.averaged,
            *((target.spec, images) if target.kind == SEEDS else ()),
        ),
        "gaussian": rivals.gaussian(seed("gaussian"), train, count),
        "gaussian_pca": rivals.pca_gaussian(
            seed("gaussian_pca"), train, count, min(part.components, len(train) - 1)
        ),
        "memorising_flow": rivals.memorised(
            named_key(config.seed, "memorising_flow", target.name),
            train,
            count,
            config.sampling.steps,
        ),
    }
    if images is not None:
        for method, shares in ((AVERAGE, None), ("interpolation", "uniform")):
            found[method] = rivals.pair_matched(
                seed(method), target.spec, train, count, images, shares
            )
    scale = rivals.tensor_scales(target.spec, train)
    chosen = noise(stages, config, target).values["strengths"]
    for name, strength in {"noise_of_a_tenth": 0.1, **chosen}.items():
        found[name] = rivals.noisy(seed(name), train, count, scale, strength)
    return {name: Generated(np.asarray(weights)) for name, weights in found.items()}


def fresh(stages: Stages, config: ConfigDict, target: Target) -> dict[str, Generated]:
    """New networks of a trajectory's recipe; of seeds, the held-out ones are that."""
    part = config.targets[target.name]
    if target.kind == SEEDS or not config.fresh.networks or part.variant not in trajectories():
        return {}
    recipe, name = trajectory_of(config, target.name), f"{target.name}-fresh"
    weights = fresh_networks(stages, recipe, config.fresh.networks, name, target.base)
    if weights.shape[1:] != target.train.shape[1:]:
        return {}  # a zoo of the user's own, of another network than the variant's
    return {"fresh": Generated(weights)}


def noise(stages: Stages, config: ConfigDict, target: Target) -> StageResult:
    """A stage: {"strengths": row -> deviations of noise}, chosen on the images to choose by.

    The largest of the config's strengths at which networks lose at most so many points.
    """
    inputs = {
        "spec": target.spec,
        "base": target.base,
        "train": target.train,
        "choice": target.choice,
        "strengths": config.rivals.strengths,
        "losses": config.rivals.losses,
        "networks": config.rivals.tuned_on,
        "seed": config.seed,
    }
    return stages(f"{target.name}-noise", inputs, _choose_noise)


def _choose_noise(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    scale = rivals.tensor_scales(given.spec, given.train)
    seed = named_seed(given.seed, context.name)

    def accuracy(strength: float) -> float:
        weights = rivals.noisy(seed, given.train, given.networks, scale, strength)
        apply, images = given.choice.preprocessing.apply, given.choice.images
        found = predictions(given.spec, weights, images, apply, host=given.base)
        return float((found == given.choice.labels).mean())

    clean, strengths = accuracy(0.0), sorted(given.strengths)
    lost = [clean - accuracy(strength) for strength in strengths]
    chosen = {}
    for name, most in zip(("noise_small", "noise_large"), given.losses, strict=True):
        fitting = [s for s, loss in zip(strengths, lost, strict=True) if loss <= most]
        chosen[name] = float(max(fitting, default=strengths[0]))
    return {"strengths": chosen, "lost": dict(zip(map(str, strengths), lost, strict=True))}


def trained(
    stages: Stages, config: ConfigDict, target: Target, averaged: np.ndarray
) -> dict[str, Generated]:
    """Averages of two, and random starts, after so many steps of training; of whole CNNs alone.

    Args:
      averaged: (S, D), halves of two members that were matched to each other.
    """
    if not target.cnn or target.kind != SEEDS or config.targets[target.name].brief:
        return {}
    found = {}
    for steps in config.trained_on.steps:
        inputs = {
            "trained_on": ConfigDict({**config.trained_on, "steps": steps}),
            "seed": config.seed,
            "spec": target.spec,
            "average": averaged[: config.trained_on.networks],
            "random": steps == max(config.trained_on.steps),
            "images": target.images,
            "choice": target.choice,
        }
        result = stages(f"{target.name}-trained-{steps}", inputs, _train)
        for kind, weights in result.values["weights"].items():
            seconds = result.values["seconds"]
            found[f"{kind}_trained_{steps}"] = Generated(weights, None, None, seconds)
    return found


def _train(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.trained_on
    starts = {AVERAGE: given.average}
    if given.random:
        keys = jax.random.split(named_key(given.seed, RANDOM), len(given.average))
        random = random_starts(keys, given.spec, "kaiming_normal")
        assert random is not None
        starts[RANDOM] = random
    begun = time.perf_counter()
    weights = train_starts(
        context,
        given.spec,
        starts,
        Training(
            given.images.inputs, given.images.labels, given.choice.inputs, given.choice.labels
        ),
        name="trained",
        seed=given.seed,
        steps=part.steps,
        batch=part.batch,
        rates=part.rates,
        tuned_on=part.tuned_on,
    )
    networks = sum(map(len, weights.values()))
    return {"weights": weights, "seconds": (time.perf_counter() - begun) / networks}
