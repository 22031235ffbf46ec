"""Whole networks for a data set that is shown, and starts for fine-tuning (FLoWN, section 3.1).

Learns one latent space and one flow over the zoos of several data sets, conditioned on support
images through CAML; then generates networks for each data set from images that the flow has never
seen, and compares them with the zoo's own and with what makes networks without a generative model
(the paper's Table 2). The generated networks are then trained on, on these and on unseen data sets
(Table 3).

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/. The same command run again goes on where it was stopped, or shows what is there. What
other runs can use, too (zoos, features, alignment), lies in `shared` beside the workdir.
"""

from __future__ import annotations

import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.report import REPORT, heading, standing
from experiments.retrieval import designs, samples
from experiments.retrieval.check import check
from experiments.retrieval.conditions import learn_to_see, show, show_beside
from experiments.retrieval.initialise import initialise
from experiments.retrieval.measure import Measures, confusion, units
from experiments.retrieval.model import model_stage
from experiments.retrieval.prior import prior
from experiments.retrieval.report import screen, write
from experiments.retrieval.rivals import nearest_sets, trained_stage, untrained
from experiments.retrieval.words import introduction, order_remarks, sentences
from experiments.retrieval.zoos import align, read_data
from experiments.stages import Stages
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.retrieval", __doc__ or "", "configs/retrieval.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """All stages of a config, to tables of results.

    Args:
      config: as `configs/retrieval.py` makes it.
      workdir: None for workdirs/retrieval-VARIANT-seedSEED.
    """
    check(config)
    default = f"workdirs/retrieval-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    # A finished run goes through its stages, too: they see whether its data are still the same.
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        done = compute(config, work)
    screen(done)
    print(f"{done['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


def compute(config: ConfigDict, work: Workdir) -> dict[str, Any]:
    """The content of results.json, stage by stage."""
    stages = Stages(work, share=config.share)

    # Zoos with their units in one order, and the conditions of their data sets.
    data = read_data(stages, config)
    order = order_remarks(config, {name: found.table for name, found in data.zoos.items()})
    for sentence in order:
        print(sentence)
    aligned = align(stages, config.alignment, data)
    sight = learn_to_see(stages, config.features, config.condition)
    known = show(stages, config, data, sight)

    # What is learned: the autoencoder and the flow in its latent, and both in other forms beside.
    design = designs.make(stages, config, data, aligned, known)
    flow = designs.flow(stages, design)
    model_stage(stages, config, data, sight, design, flow)
    components = designs.principal_components(stages, design, data.joint)
    beside = {}
    for name in config.beside:
        seen = show_beside(stages, config, data, known, name)
        beside[name] = designs.make(stages, config, data, aligned, seen, name, design)
    # The paper's prior was for the paper's objective, weights alone.
    other = prior(stages, config, data, beside.get("weights", design))

    # Networks of every method for every data set.
    nearest = nearest_sets(known, data.names, config.sampling.samples)
    networks = untrained(config, data, aligned, nearest)
    trained = trained_stage(stages, config, data, networks["average_of_two"])
    networks["average_of_two_trained"] = trained.values["average"]
    networks["kaiming_trained"] = trained.values["kaiming"]
    bandwidth = config.rivals.kde_bandwidth
    networks["kde"] = samples.of_density(stages, design, nearest, bandwidth).values
    networks["pca"] = samples.of_flow(stages, components, designs.flow(stages, components)).values
    networks["ddpm"] = samples.of_ddpm(stages, design, designs.ddpm(stages, design)).values
    networks["flown"] = samples.of_flow(stages, design, flow).values
    for name, found in beside.items():
        own = samples.of_flow(stages, found, designs.flow(stages, found))
        networks[f"flown_{name}"] = own.values
    networks |= other.weights

    # What they are worth, as they are and as starts of training.
    of_rows = units(data, known)
    measures = Measures(stages, config.evaluation, data, of_rows)
    measured = {method: measures.of(method, weights) for method, weights in networks.items()}
    draws = config.evaluation.draws
    shown, confused = confusion(stages, design, flow, data, draws, of_rows)
    starts = initialise(stages, config, data, design, flow, aligned, of_rows)
    rows = [row for result in measured.values() for row in result.values["rows"]]
    titles = (*data.names, *config.initialise.unseen)
    results = {
        **heading("retrieval", config, stages),
        "titles": {name: name.replace("_", " ") for name in titles},
        "rows": [*rows, *confused, *starts["rows"]],
        **({"remarks": order} if order else {}),
    }
    if (there := standing(work.path, results, *REPORT)) is not None:
        return there
    extra = {
        "introduction": introduction(
            config, {n: len(rows) for n, rows in data.last.items()}, data.unknown
        ),
        "curves": starts["curves"],
        "prior_curves": other.curves,
        "confusion": shown,
        "accuracies": {
            name: {
                method: [float(a) for a in result.values["accuracies"].get(name, ())]
                for method, result in measured.items()
            }
            for name in data.names
        },
        "remarks": order
        + sentences(
            {n: [*data.remarks.get(n, []), *of] for n, of in starts["remarks"].items()},
            other.remark,
            other.facts,
        ),
    }
    write(work.path, config, results, extra)
    return results


if __name__ == "__main__":
    main()
