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
from experiments.fewshot import finished
from experiments.retrieval_check import check
from experiments.retrieval_generators import Design, Generators, Weights
from experiments.retrieval_initialise import initialise
from experiments.retrieval_measure import Measures, Rivals, came_out
from experiments.retrieval_prior import prior
from experiments.retrieval_report import prior_sentence, screen, write
from experiments.retrieval_stages import Retrieval
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import StageContext, StageResult, plain_values
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
    default = f"workdirs/retrieval-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    if (done := finished(path, config)) is None:
        check(config)
        with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
            done = compute(config, work)
    screen(done)
    print(f"{done['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


def compute(config: ConfigDict, work: Workdir) -> dict[str, Any]:
    """The content of results.json, stage by stage."""
    job = Retrieval(config, work)
    aligned = job.aligned()
    known = job.conditions()
    generators = Generators(job, aligned, known)
    rivals = Rivals(job, generators, known)

    # What is learned: the autoencoder, the flow in its latent, and both in other forms beside it.
    design = generators.design("")
    flow = generators.flow(design)
    ddpm = generators.ddpm(design)
    components = generators.principal_components(design)
    components_flow = generators.flow(components)
    beside = {}
    for name, changes in config.beside.items():
        other = generators.design(name, changes.to_dict())
        beside[name] = (other, generators.flow(other))
    # The paper's prior was for the paper's objective, weights alone.
    plain, _ = beside.get("weights", (design, flow))
    other_prior = prior(job, generators, plain)

    # Networks of every method for every data set.
    def trained(context: StageContext) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in job.names:
            starts = {"average": rivals.averages(aligned, name), "kaiming": rivals.kaiming(name)}
            for kind, weights in rivals.trained(context, name, starts).items():
                found.setdefault(kind, {})[name] = weights
        return found

    # A rival that does not depend on the meta-model, but on the run's seed.
    inputs = {"rivals": config.rivals, "seed": config.seed, "samples": config.sampling.samples}
    taught = job.common("rivals", {**inputs, "aligned": aligned}, trained)

    networks: dict[str, tuple[Weights, Any]] = {
        "originals": ({n: job.part(n).weights for n in job.names}, "originals"),
        "held_out": ({n: job.part(n, held_out=True).weights for n in job.names}, "held_out"),
        "nearest_by_condition": (
            {n: rivals.by_condition(n) for n in job.names},
            [known, "nearest"],
        ),
        "aligned_mean": (
            {n: aligned.values["train"][n].mean(0, keepdims=True) for n in job.names},
            [aligned, "mean"],
        ),
        "average_of_two": (
            {n: rivals.averages(aligned, n) for n in job.names},
            [aligned, config.seed],
        ),
        "average_of_two_trained": (taught.values["average"], taught),
        "kaiming_trained": (taught.values["kaiming"], taught),
        "kde": (
            {
                n: generators.networks(design, n, generators.density(design, n, rivals.nearest(n)))
                for n in job.names
            },
            [design.source, config.rivals.kde_bandwidth, known],
        ),
        "pca": (_networks(job, generators, components, components_flow), components_flow),
        "ddpm": (
            {
                n: generators.networks(design, n, generators.sampled_ddpm(design, ddpm, n))
                for n in job.names
            },
            ddpm,
        ),
        "flown": (_networks(job, generators, design, flow), flow),
    }
    for name, (other, found) in beside.items():
        networks[f"flown_{name}"] = (_networks(job, generators, other, found), found)
    for name, weights in other_prior.weights.items():
        networks[name] = (weights, [other_prior.stage, name])

    # What they are worth.
    measures = Measures(job)
    yards = measures.yards()
    measured = {
        method: measures.rows(method, weights, yards, source)
        for method, (weights, source) in networks.items()
    }
    shown, confusion_rows = confusion(job, generators, design, flow)
    starts = initialise(job, generators, design, flow, known, aligned)
    rows = [row for stage in measured.values() for row in stage.values["rows"]]
    results = {
        "experiment": "retrieval",
        "variant": config.variant,
        "seed": config.seed,
        "fingerprint": measured["flown"].fingerprint,
        "seconds": round(job.seconds, 1),
        "seconds_of_this_run": round(job.seconds_here, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "titles": {
            name: name.replace("_", " ") for name in (*job.names, *config.initialise.unseen)
        },
        "rows": [*rows, *confusion_rows, *starts.values["rows"]],
        "environment": environment(),
    }
    remarks = [
        f"{name}: {sentence}" for name, of in starts.values["remarks"].items() for sentence in of
    ]
    if other_prior.remark:
        remarks.append(other_prior.remark)
    if other_prior.facts:
        remarks.append(prior_sentence(other_prior.facts))
    shown_too = {
        "introduction": introduction(config, job),
        "curves": starts.values["curves"],
        "prior_curves": other_prior.curves,
        "confusion": shown,
        "accuracies": _by_set({m: s.values["accuracies"] for m, s in measured.items()}),
        "remarks": remarks,
    }
    write(work.path, config, results, shown_too)
    return results


def confusion(
    job: Retrieval, generators: Generators, design: Design, flow: StageResult
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Shown set -> set that came out -> share of support draws, and the same as tidy rows."""
    draws = job.config.evaluation.draws
    vectors = {name: generators.sampled(design, flow, name, draws)[1] for name in job.names}
    shares: dict[str, dict[str, float]] = {}
    rows = []
    for shown, found in came_out(job, design, vectors).items():
        shares[shown] = {name: found.count(name) / len(found) for name in job.names}
        for name, share in shares[shown].items():
            metric = f"came_out_{name}"
            row = {"table": "confusion", "method": "flown", "set": shown, "metric": metric}
            rows.append({**row, "value": share, "ci95": None, "n": len(found)})
        right = {"table": "retrieval", "method": "flown", "set": shown, "metric": "right_set"}
        rows.append({**right, "value": shares[shown][shown], "ci95": None, "n": len(found)})
    return shares, rows


def introduction(config: ConfigDict, job: Retrieval) -> str:
    """What was run, in a few sentences."""
    counts = ", ".join(f"{name} {len(job.part(name))}" for name in job.names)
    codec, flow = config.codec, config.flow
    objective = []
    if codec.weights_weight:
        objective.append(f"reconstruction of weights ({codec.reconstruction})")
    if codec.task_weight:
        part = (
            f"{codec.task_weight} times the cross-entropy of networks decoded from mixes of "
            f"{codec.members} latents on training images"
        )
        if codec.task_balance:
            part += f", each set's over its originals' own to the power {codec.task_balance}"
        objective.append(part)
    if codec.diversity_weight:
        objective.append(f"{codec.diversity_weight} times the shortfall of their distances")
    aligned = "aligned to one reference" if config.alignment.encode else "as they are"
    return (
        f"Training networks: {counts}, {aligned}. One autoencoder and one flow for all sets; "
        f"nobody tells the model which set is shown. {config.sampling.samples} networks a set, "
        f"each from its own {config.condition.shot} support images a class, drawn from images that "
        "neither the networks nor the flow have seen. Accuracies are on test images.\n\n"
        f"Objective of the autoencoder: {'; '.join(objective)}. The flow's targets are "
        f"{'mixes of latents' if flow.target == 'mixes' else 'latents of the networks'}, its "
        f"condition is {' and '.join(config.condition.entries)}. Distances match every pair of "
        "networks unit by unit; diversity is in units of the zoo's own, and a copy is nearer to a "
        "training network than half of what held-out networks are."
    )


def _networks(job: Retrieval, generators: Generators, design: Design, flow: StageResult) -> Weights:
    return {
        name: generators.networks(design, name, generators.sampled(design, flow, name)[0])
        for name in job.names
    }


def _by_set(accuracies: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for method, of_sets in accuracies.items():
        for name, values in of_sets.items():
            found.setdefault(name, {})[method] = [float(v) for v in values]
    return found


if __name__ == "__main__":
    main()
