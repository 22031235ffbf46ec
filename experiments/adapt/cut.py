"""What the gradient cut at t' saves and what it costs (paper, section 3.1, A.4.4)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from experiments.adapt import base
from experiments.adapt.new import New
from experiments.adapt.parts import accuracy_of
from experiments.stages import Stages, recipe
from flown_jax.meta_model.keys import named_key
from flown_jax.networks import adaptation
from flown_jax.networks.adaptation import VELOCITY, Generator
from flown_jax.networks.adapting import image_batches
from flown_jax.training.recipe import train
from flown_jax.training.stages import StageContext, StageResult

_TIMES = 5  # of which the shortest counts
_DRAWS = 64


def cut(
    stages: Stages, config: ConfigDict, name: str, given: dict[str, Any], new: New
) -> StageResult:
    """A stage: {"rows": [{"steps", "t", "solver_seconds", "step_seconds", "memory", "cosine"}],
    "norms": of the gradient by time}."""
    inputs = {
        **given,
        "seed": config.seed,
        "train": new.outputs(new.train),
        "networks": config.adapt.networks,
        "batch": config.adapt.recipe.batch,
        "cut": config.cut,
    }
    return stages(f"{name}-cut", inputs, _measure)


def accuracies(
    stages: Stages,
    config: ConfigDict,
    name: str,
    given: dict[str, Any],
    new: New,
    velocity: StageResult,
) -> list[float]:
    """Accuracy on images to choose by of a velocity adapted with each t' of the config.

    Args:
      velocity: the finished stage of the adapted velocity, whose learning rate is taken.
    """
    how = config.adapt.recipe.copy_and_resolve_references()
    how.unlock()
    how.update(steps=config.cut.trained, validate_every=0)
    inputs = {
        **given,
        "seed": config.seed,
        "train": new.outputs(new.train),
        "choice": new.outputs(new.validation),
        "networks": config.adapt.networks,
        "samples": config.sampling.samples,
        "times": config.cut.times,
        "rate": velocity.values["rate"],
        "how": ConfigDict({"recipe": how}),
    }
    return stages(f"{name}-cut-trained", inputs, _train).values["accuracies"]


def _train(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    generator, found = base.generator(given), []
    how = dataclasses.replace(recipe(given.how), learning_rate=given.rate)
    key = named_key(given.seed, context.name, "choice")
    for t in given.times:

        def loss(params: Any, key: jax.Array, batch: Any, extra: Any, t: float = t) -> Any:
            value, metrics = adaptation.adaptation_loss(
                params,
                key,
                batch,
                batch["frozen"],
                networks=given.networks,
                gradient_from=t,
                diversity_weight=0.0,
            )
            return value, (metrics, extra)

        state = train(
            context,
            how,
            adaptation.parts_of(generator, [VELOCITY]),
            loss,
            image_batches(given.train, given.seed, how.batch),
            seed=given.seed,
            frozen=generator,
            name=f"{context.name}-{t:g}",
            whole=True,
        )
        now = adaptation.adapted(generator, state.params)
        found.append(accuracy_of(now, given, given.choice, key, given.samples))
    return {"accuracies": found}


def _measure(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    generator = base.generator(given)
    batch = jax.tree.map(jnp.asarray, image_batches(given.train, given.seed, given.batch)(0))
    many = jax.tree.map(jnp.asarray, image_batches(given.train, given.seed, 8 * given.batch)(0))
    key = named_key(given.seed, context.name)
    rows = []
    for steps in given.cut.steps:
        now = dataclasses.replace(generator, steps=steps)
        whole = None
        for t in given.cut.times:
            row = _row(now, key, batch, many, given.networks, t)
            direction = row.pop("gradient")
            whole = direction if whole is None else whole
            norms = np.linalg.norm(direction) * np.linalg.norm(whole)
            rows.append({"steps": steps, "t": t, **row, "cosine": float(direction @ whole / norms)})
    norms = jax.jit(adaptation.gradient_norms, static_argnums=3)(generator, key, many, _DRAWS)
    return {"rows": rows, "norms": [float(norm) for norm in norms]}


def _row(
    generator: Generator, key: jax.Array, batch: Any, many: Any, networks: int, t: float
) -> dict[str, Any]:
    start = adaptation.parts_of(generator, [VELOCITY])

    def loss(trained: Any, key: jax.Array, batch: Any, count: int) -> jax.Array:
        return adaptation.adaptation_loss(
            trained, key, batch, generator, networks=count, gradient_from=t, diversity_weight=0.0
        )[0]

    def solve(trained: Any, key: jax.Array) -> jax.Array:
        now = adaptation.adapted(generator, trained)
        return jnp.sum(jnp.square(now.flow(now.start(key, networks), t)))

    step = jax.jit(jax.grad(lambda p: loss(p, key, batch, networks))).lower(start).compile()
    solver = jax.jit(jax.grad(lambda p: solve(p, key))).lower(start).compile()
    memory = solver.memory_analysis()
    gradient = jax.jit(jax.grad(lambda p: loss(p, key, many, _DRAWS)))(start)
    return {
        "solver_seconds": _seconds(lambda: solver(start)),
        "step_seconds": _seconds(lambda: step(start)),
        "memory": float(memory.temp_size_in_bytes) if memory is not None else float("nan"),
        "gradient": np.asarray(ravel_pytree(gradient)[0], np.float64),
    }


def _seconds(run: Callable[[], Any]) -> float:
    jax.block_until_ready(run())
    found = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - begun)
    return min(found)
