"""Few images of the new data set: what a generator gives where training on has little to go by."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.adapt.parts import chosen_rate, trained_part
from experiments.stages import Stages, recipe
from experiments.zoo_generators import Generated
from experiments.zoo_targets import ZOO, Target
from flown_jax.data.pictures import Pictures
from flown_jax.evaluation.vectors import predictions
from flown_jax.networks import adaptation
from flown_jax.networks.adaptation import DECODER, RESIDUAL, VELOCITY
from flown_jax.networks.adapting import image_batches
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.state import TrainState

HEAD, ALL = "head", "all"
_EVERY = 10  # steps between two looks at the images to choose by


def shown(pictures: Pictures, count: int) -> Pictures:
    """The first so many images."""
    return dataclasses.replace(
        pictures, images=pictures.images[:count], labels=pictures.labels[:count]
    )


def adapted(
    stages: Stages,
    config: ConfigDict,
    name: str,
    given: dict[str, Any],
    new: New,
    part: str,
    count: int,
) -> StageResult:
    """A stage: {"trained", "rate"} of a part after the step that is best on images to choose by."""
    weight = config.adapt.diversity_weight if part == DECODER else 0.0
    inputs = {
        **given,
        "seed": config.seed,
        "train": shown(new.outputs(new.train), count),
        "choice": new.outputs(new.validation),
        "rates": config.adapt.rates[part],
        "part": part,
        "samples": config.sampling.samples,
        "how": _how(config),
        "networks": config.adapt.networks,
        "gradient_from": config.adapt.gradient_from if part == VELOCITY else 0.0,
        "diversity": {"weight": weight, "target": config.adapt.diversity_target},
    }
    return stages(f"{name}-{part}-{count}", inputs, _adapt)


def trained_on(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    new: New,
    name: str,
    starts: np.ndarray,
    part: str,
    count: int,
    steps: int = 0,
) -> Generated:
    """Networks whose last layer, or all of them, is trained on the first so many images.

    Args:
      steps: 0 for those of few images.
    """
    inputs = {
        "space": target.space(),
        "starts": starts,
        "seed": config.seed,
        "train": shown(new.outputs(new.train), count),
        "choice": new.outputs(new.validation),
        "rates": config.adapt.rates["head" if part == HEAD else "plain"],
        "part": part,
        "how": _how(config, steps),
    }
    result = stages(f"{name}-{count}", inputs, _train)
    return Generated(result.values["weights"], None, None, result.seconds / len(starts))


def _how(config: ConfigDict, steps: int = 0) -> ConfigDict:
    how = config.adapt.recipe.copy_and_resolve_references()
    how.unlock()
    if not steps:
        steps = config.rivals.few_steps
        how.validate_every = min(_EVERY, steps)
    how.steps = steps
    return ConfigDict({"recipe": how})


def _adapt(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    generator = base.generator(given)
    options = {
        "networks": given.networks,
        "gradient_from": given.gradient_from,
        "diversity_weight": given.diversity["weight"],
        "diversity_target": given.diversity["target"],
    }

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        frozen = batch["frozen"]
        value, metrics = adaptation.adaptation_loss(params, key, batch, frozen, **options)
        return value, (metrics, extra)

    start = adaptation.parts_of(generator, [given.part])
    return trained_part(context, generator, start, loss)


def _train(context: StageContext) -> dict[str, Any]:
    given, how = context.inputs, recipe(context.inputs.how)
    space, starts = given.space, np.asarray(given.starts)
    spec, host = space.network(ZOO)
    free = sum(entry.size for entry in spec.entries[-2:]) if given.part == HEAD else spec.size
    fixed = spec.size - free
    batches = image_batches(given.train, given.seed, min(how.batch, len(given.train.labels)))

    def whole(params: Any, first: Any) -> Any:
        return jnp.concatenate([first, params["weights"]], axis=1)

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        weights = whole(params, batch["frozen"])
        each = space.task_loss(weights, {**batch, "context": ZOO}).mean(-1)
        return each.sum(), ({"task": each.mean()}, extra)

    def score(weights: np.ndarray) -> float:
        choice = given.choice
        found = predictions(spec, weights, choice.images, choice.preprocessing.apply, host=host)
        return float((found == choice.labels).mean())

    def of(state: TrainState) -> np.ndarray:
        return np.asarray(whole(state.params, starts[:, :fixed]))

    def run(now: Recipe, name: str) -> np.ndarray:
        state = train(
            context,
            now,
            {"weights": jnp.asarray(starts[:, fixed:])},
            loss,
            batches,
            seed=given.seed,
            frozen=jnp.asarray(starts[:, :fixed]),
            name=name,
            whole=True,
            validate=lambda state: score(of(state)),
        )
        return of(state)

    weights, rate = chosen_rate(context, run, score, how, given.rates, of)
    return {"weights": weights, "rate": rate}


PARTS = (VELOCITY, RESIDUAL, DECODER)
