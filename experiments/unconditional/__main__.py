"""Networks of one zoo, generated side by side by several models and by none (FLoWN, Table 1).

Of each target, a zoo of states of one network or of networks of several seeds: trains weight
autoencoders and flows in their latents, their rivals of the literature on the same networks, and
makes networks without any model by noise, averages, interpolation and Gaussians. One table says of
all of them how accurate they are, how far from the networks that were learned from, and how far
from each other.

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/; `flown_jax.MetaModel.restore` makes the generator of the row `flown` of the workdir. The
same command run again goes on where it was stopped, or shows what is there.
"""

from __future__ import annotations

import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments import zoo_generators as generators
from experiments.designs import NORMAL, codes_of
from experiments.report import REPORT, heading, standing
from experiments.stages import Stages
from experiments.unconditional import pdiff, rivals
from experiments.unconditional.check import check
from experiments.unconditional.report import screen, write
from experiments.unconditional.words import verdicts
from experiments.zoo_generators import Generated
from experiments.zoo_measures import (
    HELD_OUT,
    ORIGINALS,
    Measures,
    reconstruction,
    reconstruction_rows,
    rows,
    say_reconstruction,
    spaced,
)
from experiments.zoo_model import model_stage
from experiments.zoo_targets import Target, read
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.unconditional", __doc__ or "", "configs/unconditional.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """All targets of a config, one after the other, to tables of results.

    Args:
      config: as `configs/unconditional.py` makes it.
      workdir: None for workdirs/unconditional-VARIANT-seedSEED.
    """
    check(config)
    default = f"workdirs/unconditional-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        stages = Stages(work, share=config.share)
        targets = {name: read(stages, config, name) for name in config.targets}
        done = {name: compute(stages, config, target) for name, target in targets.items()}
        every = [row for of in done.values() for row in of["rows"]]
        results = {
            **heading("unconditional", config, stages),
            "titles": {name: name.replace("_", " ") for name in done},
            "kinds": {name: of["target"].kind for name, of in done.items()},
            "remarks": [sentence for of in done.values() for sentence in of["remarks"]],
            "rows": every,
        }
        if (there := standing(path, results, *REPORT)) is None:
            write(path, config, results, done)
    results = there or results
    screen(results)
    print(f"{results['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


def compute(stages: Stages, config: ConfigDict, target: Target) -> dict[str, Any]:
    """One target: the rows of all methods, and the numbers of their samples for the figures."""
    # What generates. What an autoencoder keeps is said before a flow is trained in its latent.
    names = _names(config, target)
    designs = {name: generators.make(stages, config, target, name) for name in names}
    brief = config.targets[target.name].brief
    published = None if brief else pdiff.make(stages, config, target)
    kept = {
        f"vae{'_' * bool(name)}{name}": reconstruction(stages, target, design)
        for name, design in designs.items()
        if codes_of(design.config.codec) != NORMAL  # which reads no network
    }
    if published is not None:
        kept["pdiff"] = reconstruction(stages, target, published)
    say_reconstruction(target, kept)
    made = {ORIGINALS: Generated(target.train), HELD_OUT: Generated(target.held_out)}
    made |= rivals.fresh(stages, config, target)
    for name, design in designs.items():
        row = f"flown{'_' * bool(name)}{name}"
        made[row] = generators.flow(stages, config, design)
        if not name:
            model_stage(stages, config, design)
            made["ddpm"] = generators.ddpm(stages, config, design)
    if published is not None:
        made["pdiff"] = pdiff.ddpm(stages, config, published)
    components = generators.principal_components(stages, config, target)
    made["flow_on_pca"] = generators.flow(stages, config, components)
    count = config.sampling.samples
    for name, stage in kept.items():
        weights = stage.values["weights"]  # states far apart stand for all
        made[f"{name}_reconstruction"] = Generated(weights[spaced(len(weights), count)])

    # What is no model.
    made |= rivals.untrained(stages, config, target)
    if rivals.AVERAGE in made:
        made |= rivals.trained(stages, config, target, made[rivals.AVERAGE].weights)

    measures = Measures(stages, config, target)
    measured = {method: measures.of(method, networks) for method, networks in made.items()}
    found = [
        row for method, of in measured.items() for row in rows(target, method, made[method], of)
    ]
    found += reconstruction_rows(target, kept)
    return {
        "target": target,
        "rows": found,
        "samples": {method: of.values["samples"] for method, of in measured.items()},
        "remarks": [*target.remarks, *verdicts(target, found)],
    }


def _names(config: ConfigDict, target: Target) -> list[str]:
    """The designs of a target: graphs are of whole networks."""
    if config.targets[target.name].brief:
        return [""]
    beside = config[target.kind].beside
    graphs = {n for n, of in beside.items() if of.get("codec", {}).get("encoder") == "graph"}
    return ["", *(name for name in beside if not (target.spec.partial and name in graphs))]


if __name__ == "__main__":
    main()
