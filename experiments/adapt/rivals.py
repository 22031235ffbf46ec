"""What an adaptation is compared with: nothing trained, latents refined, networks trained on."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.adapt.parts import chosen_rate
from experiments.stages import Stages, recipe
from experiments.zoo_generators import Generated
from experiments.zoo_targets import Target
from flown_jax.evaluation.vectors import predictions
from flown_jax.meta_model.keys import named_key, named_seed
from flown_jax.networks import adaptation
from flown_jax.networks.adaptation import Generator
from flown_jax.networks.adapting import image_batches
from flown_jax.networks.starts import members, random_starts
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import TrainState
from flown_jax.training.tuning import Training, train_starts

PLAIN = ("generated", "kaiming", "mean")


def drawn(
    stages: Stages,
    config: ConfigDict,
    name: str,
    given: dict[str, Any],
    count: int,
    trained: Any = None,
) -> Generated:
    """New networks of the generator with trained parts, drawn by a key that nothing else has.

    Args:
      name: of the stage. given: as `base.given` gives it. trained: finished stage, or None.
    """
    inputs = {**given, "trained": trained, "seed": config.seed, "count": count}
    result = stages(name, inputs, _draw)
    own = trained.seconds if trained is not None else None
    return Generated(result.values["weights"], None, own, result.values["seconds"])


def _draw(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    generator = base.generator(given)
    if given.trained is not None:
        generator = adaptation.adapted(generator, given.trained.values["trained"])
    draw = jax.jit(Generator.draw, static_argnums=2)
    key = named_key(given.seed, context.name)
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        weights = np.asarray(draw(generator, key, given.count))
        seconds = (time.perf_counter() - start) / given.count
    return {"weights": weights, "seconds": seconds}


def zoo_members(config: ConfigDict, target: Target) -> Generated:
    """Training networks as they are."""
    seed = named_seed(config.seed, "members", target.name)
    return Generated(members(seed, target.train, config.sampling.samples))


def refined(
    stages: Stages, config: ConfigDict, name: str, given: dict[str, Any], new: New
) -> Generated:
    """Latents, each trained behind the frozen decoder: the ceiling of any velocity."""
    how = {"networks": config.rivals.networks, "recipe": config.adapt.recipe}
    inputs = {
        **given,
        "seed": config.seed,
        "train": new.outputs(new.train),
        "choice": new.outputs(new.validation),
        "rates": config.adapt.rates.refined,
        "how": ConfigDict(how),
    }
    result = stages(f"{name}-refined", inputs, _refine)
    seconds = result.seconds / config.rivals.networks
    return Generated(result.values["weights"], None, None, seconds)


def _refine(context: StageContext) -> dict[str, Any]:
    given, how = context.inputs, context.inputs.how
    generator = base.generator(given)
    z = jax.jit(lambda g, key: g.flow(g.start(key, how.networks)))(
        generator, named_key(given.seed, context.name)
    )
    batches = image_batches(given.train, given.seed, how.recipe.batch)

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        value, metrics = adaptation.refine_loss(params, key, batch, batch["frozen"])
        return value, (metrics, extra)

    def run(now: Recipe, name: str) -> np.ndarray:
        state = train(
            context,
            now,
            {"latent": z},
            loss,
            batches,
            seed=given.seed,
            frozen=generator,
            name=name,
            whole=True,
        )
        return kept(state)

    def kept(state: TrainState) -> np.ndarray:
        of = jax.jit(lambda g, z: g.weights(g.targets(z)))
        return np.asarray(of(generator, state.params["latent"]))

    spec, host = generator.latents.target.network(generator.context)

    def score(weights: np.ndarray) -> float:
        found = predictions(
            spec, weights, given.choice.images, given.choice.preprocessing.apply, host=host
        )
        return float((found == given.choice.labels).mean())

    weights, rate = chosen_rate(context, run, score, recipe(how), given.rates, kept)
    return {"weights": weights, "rate": rate}


def plain(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    new: New,
    name: str,
    starts: dict[str, np.ndarray],
    steps: int,
) -> dict[str, Generated]:
    """Networks after plain fine-tuning on the new images, by the name of their start.

    Args:
      name: of the stage. steps: of each network.
    """
    inputs = {
        "spec": target.spec,
        "starts": starts,
        "seed": config.seed,
        "train": new.outputs(new.train),
        "choice": new.outputs(new.validation),
        "steps": steps,
        "batch": config.adapt.recipe.batch,
        "rates": config.adapt.rates.plain,
        "tuned_on": config.rivals.tuned_on,
    }
    result = stages(name, inputs, _fine_tune)
    return {
        kind: Generated(weights, None, None, result.values["seconds"])
        for kind, weights in result.values["weights"].items()
    }


def _fine_tune(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    begun = time.perf_counter()
    weights = train_starts(
        context,
        given.spec,
        given.starts,
        Training(given.train.inputs, given.train.labels, given.choice.inputs, given.choice.labels),
        name="plain",
        seed=given.seed,
        steps=given.steps,
        batch=given.batch,
        rates=given.rates,
        tuned_on=given.tuned_on,
    )
    networks = sum(map(len, weights.values()))
    return {"weights": weights, "seconds": (time.perf_counter() - begun) / networks}


def starts_of(config: ConfigDict, target: Target, generated: np.ndarray) -> dict[str, np.ndarray]:
    """Starts of plain fine-tuning, by name: the generated ones, and so many of others."""
    count = config.rivals.networks
    found = {"generated": generated}
    keys = jax.random.split(named_key(config.seed, "kaiming", target.name), count)
    if (random := random_starts(keys, target.spec, "kaiming_normal")) is not None:
        found["kaiming"] = random
    found["mean"] = np.repeat(target.train.mean(0, keepdims=True), count, axis=0)
    return found


def deviations(
    config: ConfigDict, target: Target, fine_tuned: np.ndarray, wanted: float
) -> Generated:
    """A fine-tuned mean plus deviations of members from theirs, as far apart as is wanted.

    Args:
      fine_tuned: (D,). wanted: mean distance, in those of two training networks.
    """
    seed = named_seed(config.seed, "deviations", target.name)
    chosen = members(seed, target.train, config.sampling.samples)
    return Generated(fine_tuned + wanted * (chosen - target.train.mean(0)))


def displaced(generated: np.ndarray, before: np.ndarray, after: np.ndarray) -> Generated:
    """Generated networks moved as training on moved one network: w + (after - before)."""
    return Generated(generated + (after - before))
