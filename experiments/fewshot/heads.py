"""Stages of the target heads: what validation tasks choose for the baselines, heads, their space.

They do not depend on what is learned from them: runs beside each other share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.settings import settings
from experiments.stages import Stages
from experiments.tasks import Tables
from flown_jax.few_shot import target_heads
from flown_jax.few_shot.batches import Examples
from flown_jax.few_shot.selection import choose_baselines
from flown_jax.few_shot.space import HeadSpace, fit_head_space
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.training.stages import StageContext, StageResult

_MEASURED = slice(0, 2000)  # tasks that tell sizes


def probe_of(config: ConfigDict) -> dict[str, Any]:
    """What the probe's fit takes of the config's `probe`."""
    return {n: config[n] for n in ("steps", "learning_rate", "weight_decay", "use_bias")}


def baselines_stage(stages: Stages, config: ConfigDict, tables: Tables) -> StageResult:
    """What validation tasks choose for the probe, ridge and logistic regression."""
    inputs = {
        "probe": probe_of(config.probe),
        "lengths": config.probe.lengths,
        "l2": config.ridge.l2,
        "inverse_penalties": config.logistic.inverse_penalties,
        "validation": tables.validation,
    }
    return stages.common("baselines", inputs, _choose_baselines)


def _choose_baselines(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    grids = {n: getattr(given, n) for n in ("lengths", "l2", "inverse_penalties")}
    return {
        name: choose_baselines(table, given.probe, **grids)
        for name, table in given.validation.items()
    }


def heads_stage(
    stages: Stages, config: ConfigDict, tables: Tables, chosen: StageResult
) -> StageResult:
    """The target heads of all training tasks, and their space."""
    targets, main = config.targets, settings(config.tasks.settings)[0]
    unused = {"lda": (), "adamw": ("shrinkage",)}[targets.kind]
    inputs: dict[str, Any] = {
        "targets": ConfigDict({k: v for k, v in targets.items() if k not in unused}),
        "train": tables.train,
    }
    if targets.kind == "adamw":
        inputs |= {"probe": probe_of(config.probe), "length": chosen.values[main.name]["length"]}
    if targets.sharpened:
        inputs["held_out"] = tables.held_out
    return stages.common("heads", inputs, _fit_heads)


def _fit_heads(context: StageContext) -> dict[str, Any]:
    given, targets = context.inputs, context.inputs.targets
    heads: dict[int, np.ndarray] = {}
    chosen: dict[str, dict[int, float]] = {
        "target_temperature": {},
        "base_scale": {},
        "sharpness": {},
    }
    for shot, table in given.train.items():
        found = _unscaled(context, shot, table)
        query, prototypes = table.query(_MEASURED), table.prototypes(_MEASURED)
        temperature = target_heads.best_head_temperature(
            found[_MEASURED], query, tuple(targets.temperatures)
        )
        grid, sharpness = tuple(targets.base_scales), 1.0
        scale = target_heads.best_base_scale(prototypes, query, grid) if grid else 0.0
        if targets.sharpened:
            held = given.held_out[shot]
            sharpness = target_heads.excess_sharpness(
                (prototypes, query), (held.prototypes(), held.query())
            )
        chosen["sharpness"][shot] = sharpness
        chosen["base_scale"][shot] = scale / sharpness
        chosen["target_temperature"][shot] = temperature * sharpness
        heads[shot] = found / chosen["target_temperature"][shot]
    space = fit_head_space(
        [jnp.asarray(found) for found in heads.values()],
        [jnp.asarray(table.prototypes()) for table in given.train.values()],
        shots=tuple(heads),
        base_scales=tuple(chosen["base_scale"].values()),
        centred=targets.centred,
        standardise=targets.standardised,
        sharpness=tuple(chosen["sharpness"].values()),
    )
    description, arrays = space.describe()
    return {
        "heads": {str(shot): found for shot, found in heads.items()},
        "space": {"description": description, "arrays": arrays},
        "chosen": {name: {str(k): v for k, v in of.items()} for name, of in chosen.items()},
    }


def _unscaled(context: StageContext, shot: int, table: TaskTable) -> np.ndarray:
    """Heads (T, n, F + 1) of the tasks of a table, of any size."""
    given = context.inputs
    if given.targets.kind == "lda":
        return target_heads.fit_lda(table, shrinkage=given.targets.shrinkage)
    with context.records.progress(f"heads of {shot} shots", len(table)) as update:
        return target_heads.fit_heads(table, length=given.length, report=update, **given.probe)


def space_of(heads: StageResult) -> HeadSpace:
    """The head space of finished target heads."""
    stored = heads.values["space"]
    return HeadSpace.build(stored["description"], jax.tree.map(jnp.asarray, stored["arrays"]))


def examples_of(heads: StageResult, train: Mapping[int, TaskTable]) -> list[Examples]:
    """Training tasks with their heads, a table for each number of support images."""
    found = heads.values["heads"]
    return [Examples(table, found[str(shot)]) for shot, table in train.items()]


def nearest_shot(values: Mapping[str, float], shot: int) -> float:
    """The value of the trained number of support images that is nearest to this one."""
    return values[min(values, key=lambda known: abs(int(known) - shot))]
