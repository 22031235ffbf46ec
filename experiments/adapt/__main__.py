"""A trained generator of networks, adapted to a new data set (FLoWN, section 3.1, Table 4).

Of each target, a zoo and a data set that none of its networks saw: trains a generator of the zoo's
networks, then adapts its velocity (back-propagation through the solver, cut before t'), one vector
behind its decoder, or its decoder, to the new images. Beside them stand two ways without
back-propagation through the solver, plain fine-tuning, and what is not trained at all. All rows are
networks that were never trained on themselves, but for those of fine-tuning.

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/; `flown_jax.MetaModel.restore` makes the adapted generator of the workdir. The same command
run again goes on where it was stopped, or shows what is there.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.adapt import base, cut, fine_tuned, new, parts, progress, rivals
from experiments.adapt.check import check
from experiments.adapt.model import model_stage
from experiments.adapt.report import screen, write
from experiments.adapt.words import STATIC, verdicts
from experiments.report import REPORT, heading, standing
from experiments.stages import Stages
from experiments.zoo_measures import Measures, rows
from experiments.zoo_targets import Target, read
from flown_jax.networks.adaptation import VELOCITY
from flown_jax.networks.class_order import ClassOrder, by_number
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.adapt", __doc__ or "", "configs/adapt.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """All targets of a config, one after the other, to tables of results.

    Args:
      config: as `configs/adapt.py` makes it.
      workdir: None for workdirs/adapt-VARIANT-seedSEED.
    """
    check(config)
    default = f"workdirs/adapt-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        stages = Stages(work, share=config.share)
        targets = {name: read(stages, config, name) for name in config.targets}
        done = {name: compute(stages, config, target) for name, target in targets.items()}
        results = {
            **heading("adapt", config, stages),
            "titles": {name: name.replace("_", " ") for name in done},
            "remarks": [sentence for of in done.values() for sentence in of["remarks"]],
            "cuts": {name: of["cut"] for name, of in done.items()},
            "rows": [row for of in done.values() for row in of["rows"]],
        }
        if (there := standing(path, results, *REPORT)) is None:
            write(path, config, results, done)
    results = there or results
    screen(results)
    print(f"{results['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


def compute(stages: Stages, config: ConfigDict, target: Target) -> dict[str, Any]:
    """One target: the rows of all methods."""
    name = target.name
    fresh = new.read(config, target)
    given = base.given(stages, config, target, fresh)
    count, brief = config.sampling.samples, config.targets[name].brief

    others = () if brief else (parts.ALONE, parts.ADJOINT, parts.REWEIGHTED)
    adapted = {
        part: parts.adapt(stages, config, name, given, fresh, part)
        for part in (*config.adapt.parts, *others)
    }
    model_stage(stages, config, target, fresh, given, adapted[config.adapt.parts[-1]])
    budgets: dict[str, progress.Curve] = {}
    made = {STATIC: rivals.drawn(stages, config, f"{name}-static", given, count)}
    made["members"] = rivals.zoo_members(config, target)
    made["refined"] = rivals.refined(stages, config, name, given, fresh)
    for part, stage in adapted.items():
        row = f"{name}-samples-{part}"
        made[part] = rivals.drawn(stages, config, row, given, count, stage)
    if target.cnn:
        starts = fine_tuned.starts(stages, config, target, given)
        made |= fine_tuned.rows(stages, config, target, fresh, given, made, starts)
        if not brief:
            made |= fine_tuned.few_images(stages, config, target, fresh, given, starts)
            of_zoo = {kind: own for kind, own in starts.items() if kind in rivals.PLAIN}
            budgets = progress.plain_stage(stages, config, target, fresh, of_zoo)
    else:
        begun = rivals.drawn(stages, config, f"{name}-starts", given, config.rivals.networks)
        made |= fine_tuned.of_parts(stages, config, target, fresh, begun.weights)

    judged = _judged(target, fresh)
    measures = Measures(stages, config, judged)
    measured = {method: measures.of(method, own) for method, own in made.items()}
    found = [
        row for method, of in measured.items() for row in rows(judged, method, made[method], of)
    ]
    if fresh.order.matched:
        # The classes in order of their numbers, as in the paper's static row.
        number, plain = f"{STATIC}_by_number", by_number(len(fresh.class_names))
        other = Measures(stages, config, _judged(target, fresh, plain), "by_number")
        found += rows(judged, number, made[STATIC], other.of(number, made[STATIC]))
    return {
        "target": target,
        "new": fresh,
        "rows": found,
        "samples": {method: of.values["samples"] for method, of in measured.items()},
        "cut": None if brief else _cut(stages, config, target, fresh, given, adapted),
        "curves": progress.curves_of(adapted, budgets),
        "remarks": [*target.remarks, *fresh.remarks, *verdicts(name, found)],
    }


def _cut(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    fresh: new.New,
    given: dict[str, Any],
    adapted: dict[str, Any],
) -> dict[str, Any]:
    """What the cut costs and gives by t'."""
    found = dict(cut.cut(stages, config, target.name, given, fresh).values)
    if VELOCITY in adapted:
        found["accuracies"] = cut.accuracies(
            stages, config, target.name, given, fresh, adapted[VELOCITY]
        )
    return found


def _judged(target: Target, fresh: new.New, order: ClassOrder | None = None) -> Target:
    """The target with the new test images, for the measures."""
    return dataclasses.replace(target, test=fresh.outputs(fresh.test, order))


if __name__ == "__main__":
    main()
