"""Parts of a generator, adapted to a new data set, each a stage."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.adapt.progress import curve
from experiments.stages import Stages, recipe
from flown_jax.data.pictures import Pictures
from flown_jax.evaluation.vectors import predictions
from flown_jax.flow.couplings import independent
from flown_jax.flow.paths import LinearPath
from flown_jax.meta_model.keys import named_key
from flown_jax.meta_model.losses import flow_loss
from flown_jax.networks import adaptation
from flown_jax.networks.adaptation import DECODER, VELOCITY, Generator
from flown_jax.networks.adapting import image_batches
from flown_jax.training.loop import Diverged
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.state import TrainState, averaged

ADJOINT, REWEIGHTED, ALONE = "adjoint_matching", "reward_weighted", "decoder_alone"


def adapt(
    stages: Stages, config: ConfigDict, name: str, given: dict[str, Any], new: New, part: str
) -> StageResult:
    """A stage: {"trained": parts, "rate", "curve"} of the named part.

    Args:
      name: of the target. given: as `base.given` gives it.
      part: of `adaptation.PARTS`, or one of the other ways in of this file.
    """
    own = part if part in adaptation.PARTS else VELOCITY
    own = DECODER if part == ALONE else own
    inputs = {
        **given,
        "seed": config.seed,
        "train": new.outputs(new.train),
        "choice": new.outputs(new.validation),
        "rates": config.adapt.rates[own],
        "samples": config.sampling.samples,
        "part": part,
    }
    if part == ADJOINT:
        return stages(f"{name}-{part}", {**inputs, "how": config.adjoint}, _adjoint)
    if part == REWEIGHTED:
        return stages(f"{name}-{part}", {**inputs, "how": config.reweighted}, _reweighted)
    how = {n: config.adapt[n] for n in ("networks", "recipe", "gradient_from")}
    if part == DECODER:
        how |= {n: config.adapt[n] for n in ("diversity_weight", "diversity_target")}
    if own != VELOCITY:
        del how["gradient_from"]
    return stages(f"{name}-{part}", {**inputs, "how": ConfigDict(how)}, _adapt)


def chosen_rate(
    context: StageContext,
    run: Callable[[Recipe, str], Any],
    score: Callable[[Any], float],
    how: Recipe,
    rates: Sequence[float],
    kept: Callable[[TrainState], Any] = lambda state: state.params,
) -> tuple[Any, float]:
    """What `run` gives at the rate whose result scores highest, and the rate.

    A run that diverges is told in a sentence, and gives its best validated state, if there is one.

    Args:
      run: (recipe, name of the run) -> what was trained. score: of that, on images to choose by.
      kept: what was trained of a state.
    Raises:
      Diverged: every run did, before anything was validated.
    """
    found: list[tuple[float, int, Any, float]] = []
    for number, rate in enumerate(rates):
        try:
            trained = run(dataclasses.replace(how, learning_rate=rate), f"{context.name}-{number}")
        except Diverged as error:
            if number == len(rates) - 1 and not found and error.best is None:
                raise
            context.records.note(f"{error} (learning rate {rate:g})")
            if error.best is None:
                continue
            trained = kept(error.best)
        found.append((score(trained), -number, trained, rate))
    _, _, trained, rate = max(found, key=lambda of: of[:2])
    return trained, float(rate)


def accuracy_of(
    generator: Generator, given: Any, pictures: Pictures, key: jax.Array, count: int
) -> float:
    """Mean accuracy of new networks on images."""
    spec, host = generator.latents.target.network(generator.context)
    weights = np.asarray(jax.jit(Generator.draw, static_argnums=2)(generator, key, count))
    found = predictions(spec, weights, pictures.images, pictures.preprocessing.apply, host=host)
    return float((found == pictures.labels).mean())


def _adapt(context: StageContext) -> dict[str, Any]:
    given, how = context.inputs, context.inputs.how
    generator = base.generator(given)
    own = DECODER if given.part == ALONE else given.part
    options = {name: value for name, value in how.items() if name != "recipe"}
    if own != DECODER or given.part == ALONE:
        options["diversity_weight"] = 0.0
    start = adaptation.parts_of(generator, [own])

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        frozen = batch["frozen"]
        value, metrics = adaptation.adaptation_loss(params, key, batch, frozen, **options)
        return value, (metrics, extra)

    return trained_part(context, generator, start, loss)


def _adjoint(context: StageContext) -> dict[str, Any]:
    given, how = context.inputs, context.inputs.how
    generator = base.generator(given)
    options = {n: how[n] for n in ("networks", "steps", "strength", "last", "others")}
    options["largest"] = how.largest or None

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        value, metrics = adaptation.adjoint_loss(params, key, batch, batch["frozen"], **options)
        return value, (metrics, extra)

    return trained_part(context, generator, adaptation.parts_of(generator, [VELOCITY]), loss)


def trained_part(
    context: StageContext, generator: Generator, start: Any, loss: Any
) -> dict[str, Any]:
    """Values of a stage that trains parts: {"trained", "rate", "curve"}.

    The rate and the step are those that are best on images to choose by.

    Args:
      start: the parts as they are. loss: as in `training.step.make_step`.
    """
    given, how = context.inputs, recipe(context.inputs.how)
    batches = image_batches(given.train, given.seed, min(how.batch, len(given.train.labels)))
    key = named_key(given.seed, context.name, "choice")
    begun = time.perf_counter()

    def score(trained: Any) -> float:
        now = adaptation.adapted(generator, trained)
        return accuracy_of(now, given, given.choice, key, given.samples)

    def run(how: Recipe, name: str) -> Any:
        return train(
            context,
            how,
            start,
            loss,
            batches,
            seed=given.seed,
            frozen=generator,
            name=name,
            whole=True,
            validate=lambda state: score(state.params),
        ).params

    trained, rate = chosen_rate(context, run, score, how, given.rates)
    steps = how.steps * len(given.rates)
    pace = (time.perf_counter() - begun) / steps
    name = f"{context.name}-{list(given.rates).index(rate)}"
    return {"trained": trained, "rate": rate, "curve": curve(context, name, pace)}


def _reweighted(context: StageContext) -> dict[str, Any]:
    """Rounds of: networks are drawn, and the flow goes on learning those that do well, again."""
    given, how = context.inputs, context.inputs.how
    generator, each = base.generator(given), recipe(how)
    draw = jax.jit(lambda g, key: g.flow(g.start(key, how.networks)))
    reward = jax.jit(adaptation.rewards)
    images = image_batches(given.train, given.seed, how.images)
    condition = jax.tree.map(np.asarray, generator.conditions(each.batch))
    options: dict[str, Any] = {
        "path": LinearPath(0.0),
        "coupling": independent,
        "source": generator.source,
    }

    def loss(params: Any, key: jax.Array, batch: Any, extra: Any) -> Any:
        value, metrics = flow_loss(
            generator.velocity, params[VELOCITY], key, batch, None, **options
        )
        return value, (metrics, extra)

    def run(how_now: Recipe, name: str) -> Any:
        now = generator
        for number in range(how.rounds):
            key = named_key(given.seed, context.name, "round", number)
            z = draw(now, key)
            good = np.asarray(reward(now, z, images(number)), np.float64) / how.temperature
            share = np.exp(good - good.max())
            drawn = np.asarray(z)

            def batch_at(i: int, drawn=drawn, share=share, number=number) -> dict[str, Any]:
                rng = np.random.default_rng((given.seed, number, i))
                rows = rng.choice(len(drawn), how_now.batch, p=share / share.sum())
                return {"latent": drawn[rows], "condition": condition}

            state = train(
                context,
                how_now,
                adaptation.parts_of(now, [VELOCITY]),
                loss,
                batch_at,
                seed=given.seed,
                name=f"{name}-{number}",
            )
            now = adaptation.adapted(now, averaged(state))
        return adaptation.parts_of(now, [VELOCITY])

    key = named_key(given.seed, context.name, "choice")

    def score(trained: Any) -> float:
        now = adaptation.adapted(generator, trained)
        return accuracy_of(now, given, given.choice, key, given.samples)

    trained, rate = chosen_rate(context, run, score, each, given.rates)
    return {"trained": trained, "rate": rate, "curve": {"scores": [], "step_seconds": 0.0}}
