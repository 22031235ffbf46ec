"""Networks of a trajectory's recipe that are not in its zoo: what a new network looks like."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.stages import Stages
from experiments.trajectory_network import build
from experiments.trajectory_training import TrajectoryTraining, base_variables, saved_states
from flown_jax.training.stages import StageContext

_FIRST_SEED = 1000  # beside those that zoos have


def fresh_networks(
    stages: Stages, config: ConfigDict, count: int, name: str, base: Any = None
) -> np.ndarray:
    """Networks (count, D) of a trajectory's recipe with other seeds; no test image is seen.

    A whole network is trained anew for each, to where the trajectory begins to save states. A part
    of a network fits no other one: its states are saved once more with images in another order, and
    are taken at equal distances.

    Args:
      config: of the trajectory. name: of the stages, before their numbers.
      base: variables of the network around a part; None for whole networks.
    """
    job = TrajectoryTraining(config, stages.workdir)
    common = {**job.common, "part": config.network.part}
    if base is not None:
        states = {"count": config.states.count, "every": job.every, "recipe": config.states.recipe}
        inputs = {**common, **states, "seed": _FIRST_SEED, "base": base}
        found = stages.common(f"{name}-again", inputs, _again).values["weights"]
        return found[(np.arange(count) + 1) * len(found) // count - 1]
    networks = []
    for seed in range(_FIRST_SEED, _FIRST_SEED + count):
        inputs = {**common, "seed": seed, "start": job.start, "recipe": config.base}
        networks.append(stages.common(f"{name}-{seed}", inputs, _anew).values["weights"])
    return np.stack(networks)


def _anew(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    spec = build(given.network, given.inputs, given.part).spec
    variables = jax.tree.map(jnp.asarray, base_variables(context))
    return {"weights": np.asarray(spec.flatten(variables))}


def _again(context: StageContext) -> dict[str, Any]:
    base = jax.tree.map(jnp.asarray, context.inputs.base)
    return {"weights": np.asarray(saved_states(context, base)["weights"])}
