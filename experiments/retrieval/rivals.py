"""Networks without a generative model, from the same zoos and conditions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages
from flown_jax.meta_model.keys import named_key, named_seed
from flown_jax.networks.conditions import nearest_set
from flown_jax.networks.rivals import averages, handed_out
from flown_jax.networks.starts import random_starts
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.tuning import Training, train_starts


def nearest_sets(known: StageResult, names: tuple[str, ...], count: int) -> dict[str, list[str]]:
    """The set that retrieval by condition names for each of a set's first support draws.

    Args:
      known: finished stage, the conditions. names: of the sets.
    """
    banks = {name: known.values["train"][name] for name in names}
    shown = {name: known.values["validation"][name] for name in names}
    return {
        name: nearest_set({k: v[:count] for k, v in own.items()}, banks)
        for name, own in shown.items()
    }


def untrained(
    config: ConfigDict, data: Data, aligned: StageResult, nearest: dict[str, list[str]]
) -> dict[str, Weights]:
    """Method -> set -> networks (S, D of the set) of the methods that train nothing."""
    seed, count, train = config.seed, config.sampling.samples, data.weights
    of_aligned, last = aligned.values["train"], data.last
    return {
        "originals": {name: train[name][rows] for name, rows in last.items()},
        "held_out": data.fresh,
        "nearest_by_condition": {
            name: handed_out(named_seed(seed, name), data.joint, name, sets, train)
            for name, sets in nearest.items()
        },
        "aligned_mean": {n: w.mean(0, keepdims=True) for n, w in of_aligned.items()},
        "average_of_two": {
            name: averages(named_seed(seed, name), of_aligned[name][rows], count)
            for name, rows in last.items()
        },
    }


def trained_stage(stages: Stages, config: ConfigDict, data: Data, averaged: Weights) -> StageResult:
    """A stage: kind -> set -> networks after some training, of averages and of random starts.

    Args:
      averaged: means of two networks, of each set.
    """
    inputs = {
        "rivals": ConfigDict({k: v for k, v in config.rivals.items() if k != "kde_bandwidth"}),
        "seed": config.seed,
        "joint": data.joint,
        "average": averaged,
        "train": data.pictures("train"),
        "validation": data.pictures("validation"),
    }
    # A rival that does not depend on the meta-model, but on the run's seed.
    return stages.common("rivals", inputs, _train, version=2)


def _train(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.rivals
    found: dict[str, Weights] = {"average": {}, "kaiming": {}}
    for name, averaged in given.average.items():
        spec, own = given.joint.spec(name), given.train[name]
        choice = given.validation[name]
        keys = jax.random.split(named_key(given.seed, "kaiming", name), len(averaged))
        starts: dict[str, np.ndarray] = {"average": averaged}
        if (random := random_starts(keys, spec, "kaiming_normal")) is not None:
            starts["kaiming"] = random
        weights = train_starts(
            context,
            spec,
            starts,
            Training(own.inputs, own.labels, choice.inputs, choice.labels),
            name=name,
            seed=given.seed,
            steps=part.steps,
            batch=part.batch,
            rates=part.learning_rates,
            tuned_on=part.tuned_on,
        )
        for kind, networks in weights.items():
            found[kind][name] = networks
    return found
