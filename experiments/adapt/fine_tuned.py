"""Rows of plain fine-tuning, on all images, at equal cost and on few."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.adapt import few, rivals
from experiments.adapt.new import New
from experiments.adapt.words import STATIC
from experiments.stages import Stages
from experiments.zoo_generators import Generated
from experiments.zoo_targets import Target
from flown_jax.networks.adaptation import DECODER, RESIDUAL
from flown_jax.weights.statistics import distances


def rows(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    fresh: New,
    given: dict[str, Any],
    made: dict[str, Generated],
    begun: dict[str, np.ndarray],
) -> dict[str, Generated]:
    """Networks that are trained on, by method, and what is made of them; of whole CNNs.

    Args:
      made: the rows of `static` and of the adapted generators. begun: as `starts` gives them.
    """
    name, steps = target.name, config.adapt.recipe.steps
    each, generated = config.rivals.networks, begun["generated"]
    begun = {**begun, "generated": generated[:each]}
    plain = rivals.plain(stages, config, target, fresh, f"{name}-plain", begun, steps)
    found = {f"plain_{kind}": own for kind, own in plain.items()}
    for count in config.rivals.spread:
        row, short = f"{name}-plain-{count}", max(steps * each // count, 1)
        few_steps = {"generated": generated[:count]}
        one = rivals.plain(stages, config, target, fresh, row, few_steps, short)
        found[f"plain_generated_{count}"] = one["generated"]
    after = found.pop("plain_generated_mean").weights
    found["displaced"] = rivals.displaced(made[STATIC].weights, begun["generated_mean"], after)
    unit = _apart(target.train)
    for part in (RESIDUAL, DECODER):
        if part in made:
            wanted = _apart(made[part].weights) / unit
            moved = rivals.deviations(config, target, plain["mean"].weights[0], wanted)
            found[f"mean_with_deviations_of_{part}"] = moved
    return found


def of_parts(
    stages: Stages, config: ConfigDict, target: Target, fresh: New, generated: np.ndarray
) -> dict[str, Generated]:
    """Fine-tuned parts of networks, whose units have no order that could be matched.

    Args:
      generated: new networks (S, D), of which as many are trained on as of whole CNNs.
    """
    each, steps = config.rivals.networks, config.adapt.recipe.steps
    begun = {"generated": generated[:each], "mean": target.train.mean(0, keepdims=True)}
    return {
        f"plain_{kind}": few.trained_on(
            stages,
            config,
            target,
            fresh,
            f"{target.name}-plain-{kind}",
            own,
            few.ALL,
            len(fresh.train.labels),
            steps,
        )
        for kind, own in begun.items()
    }


def few_images(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    fresh: New,
    given: dict[str, Any],
    begun: dict[str, np.ndarray],
) -> dict[str, Generated]:
    """Rows of few images, adapted and trained on; of whole CNNs.

    Args:
      begun: as `starts` gives them.
    """
    name, found = target.name, {}
    each = config.rivals.networks
    for count in config.rivals.few:
        for part in config.adapt.parts:
            stage = few.adapted(stages, config, name, given, fresh, part, count)
            row = f"{name}-samples-{part}-{count}"
            found[f"{part}_{count}_images"] = rivals.drawn(
                stages, config, row, given, config.sampling.samples, stage
            )
        for part, kind in ((few.HEAD, "generated"), (few.ALL, "generated"), (few.ALL, "mean")):
            row = f"{name}-{part}-{kind}"
            own = few.trained_on(
                stages, config, target, fresh, row, begun[kind][:each], part, count
            )
            label = "head_alone" if part == few.HEAD else f"plain_{kind}"
            found[f"{label}_{count}_images"] = own
    return found


def starts(
    stages: Stages, config: ConfigDict, target: Target, given: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Starts of plain fine-tuning by kind, of generated ones as many as any row takes."""
    most = max(config.rivals.networks, *config.rivals.spread)
    generated = rivals.drawn(stages, config, f"{target.name}-starts", given, most).weights
    found = rivals.starts_of(config, target, generated)
    # The mean of generated networks, whose displacement is carried over.
    return {**found, "generated_mean": generated.mean(0, keepdims=True)}


def _apart(weights: np.ndarray) -> float:
    """Mean distance of two."""
    count = len(weights)
    return float(distances(weights).sum() / (count * (count - 1)))
