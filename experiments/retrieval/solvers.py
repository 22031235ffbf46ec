"""Solvers and numbers of steps: what they change in the networks of a finished retrieval run.

    python -m experiments.retrieval --workdir=WORKDIR
    python -m experiments.retrieval.solvers WORKDIR --networks=50

Every setting starts from the same noise and is shown the same support draws. Accuracy is on the
validation images, which no network of the zoos was trained on and from which the supports come: a
choice of solver is made on them. `apart`: mean distance between two networks, in that of the
reference, the last line; `off`: mean distance from the same network of the reference, in the mean
distance between two of its networks. The reference solves to a tolerance of 1e-5.
"""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy.spatial.distance import pdist

from configs.retrieval import get_config
from experiments import command
from experiments.command import fields_of
from experiments.designs import latents_of
from experiments.retrieval import designs
from experiments.retrieval.conditions import learn_to_see, show
from experiments.retrieval.samples import draw_counted
from experiments.retrieval.zoos import align, read_data
from experiments.runs import load
from experiments.stages import Stages
from flown_jax.errors import UserError
from flown_jax.evaluation.classification import accuracy
from flown_jax.evaluation.networks import log_probabilities
from flown_jax.networks.space import OfSet
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir

SETTINGS: tuple[tuple[str, int], ...] = (
    *(("euler", steps) for steps in (1, 2, 5, 10, 30, 100)),
    *(("heun", steps) for steps in (1, 5, 15, 50)),
    *(("midpoint", steps) for steps in (1, 5, 15, 50)),
)
REFERENCE = ("dopri5", 1)


def measured(workdir: pathlib.Path, networks: int) -> list[dict[str, Any]]:
    """Rows of every data set and setting, the reference last in each set.

    Args:
      workdir: of a finished run of `experiments.retrieval`. networks: of each set and setting.
    """
    config = _stored(workdir)
    with Workdir(workdir, plain_values(config)) as work:
        stages = Stages(work, share=config.share)
        data = read_data(stages, config)
        known = show(stages, config, data, learn_to_see(stages, config.features, config.condition))
        design = designs.make(stages, config, data, align(stages, config.alignment, data), known)
        given = SimpleNamespace(**design.drawn_from(designs.flow(stages, design)))
    latents, rows = latents_of(given.codec), []
    for name in data.names:
        found = {}
        for solver, steps in (*SETTINGS, REFERENCE):
            given.sampling = {"solver": solver, "steps": steps}
            z, nfe = draw_counted(given, name, networks, "samples")
            weights = np.asarray(latents.decode(z, OfSet(name)))
            found[solver, steps] = weights, float(np.mean(nfe))
        rows += _rows(name, data.joint.spec(name), data.images[name].validation, found)
    return rows


def _stored(workdir: pathlib.Path) -> ConfigDict:
    """The config of a run."""
    values = json.loads((workdir / "config.json").read_text())
    config = get_config(values["variant"].split("-try")[0])
    config.unlock()
    for field, default in list(fields_of(config)):
        *groups, last = field.split(".")
        part, value = config, values
        for group in groups:
            part, value = part[group], value[group]
        part[last] = tuple(value[last]) if isinstance(default, tuple) else value[last]
    return config


def _rows(name: str, spec: Any, shown: Any, found: dict[tuple[str, int], Any]) -> list[dict]:
    reference = found[REFERENCE][0]
    unit, rows = _apart(reference), []
    for (solver, steps), (weights, nfe) in found.items():
        scores = np.asarray(log_probabilities(spec, weights, shown.inputs))
        right = np.asarray([float(accuracy(own, shown.labels)) for own in scores])
        off = np.linalg.norm(weights - reference, axis=1).mean() / unit
        rows.append(
            {
                "set": name,
                "solver": solver,
                "steps": steps,
                "nfe": nfe,
                "accuracy": right.mean(),
                "worst": right.min(),
                "apart": _apart(weights) / unit,
                "off": off,
            }
        )
    return rows


def _apart(weights: np.ndarray) -> float:
    """Mean distance between two of the networks."""
    return float(pdist(weights.astype(np.float64)).mean())


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| set | solver | steps | evaluations | mean accuracy, % | worst, % | apart | off |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = "adaptive" if row["solver"] == REFERENCE[0] else str(row["steps"])
        lines.append(
            f"| {row['set'].replace('_', ' ')} | {row['solver']} | {steps} | {row['nfe']:.0f} "
            f"| {100 * row['accuracy']:.1f} | {100 * row['worst']:.1f} | {row['apart']:.2f} "
            f"| {row['off']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.retrieval.solvers", __doc__)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--networks", type=int, default=50)
    with command.one_sentence():
        given = parser.parse_args()
        if load(given.workdir)["experiment"] != "retrieval":
            raise UserError(f"{given.workdir} holds no run of experiments.retrieval.")
        if given.networks < 2:
            raise UserError(f"--networks={given.networks}: 2 or more are wanted.")
        print(table(measured(given.workdir, given.networks)))


if __name__ == "__main__":
    main()
