"""Few-shot learning with generated heads (FLoWN, section 3.2 and Table 5).

Trains a backbone on meta-train classes, fits one linear head to each of many small tasks, learns a
latent space of these heads and a flow in it, conditioned on the task's support images; then
generates heads for tasks of unseen classes and of a foreign data set, and compares them with the
baselines that use the same support images.

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/. The same command run again goes on where it was stopped, or shows what is there.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.fewshot_check import check
from experiments.fewshot_generators import assemble, train_generators
from experiments.fewshot_measure import Evaluation, evaluate
from experiments.fewshot_report import TITLES, contact_sheet, write
from experiments.fewshot_stages import FewShot
from flown_jax.errors import UserError
from flown_jax.evaluation import tables
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import plain_values, stage
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.fewshot", __doc__ or "", "configs/fsl.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """All stages of a config, to a table of results.

    Args:
      config: as `configs/fsl.py` makes it.
      workdir: None for workdirs/fsl-VARIANT-seedSEED.
    """
    default = f"workdirs/fsl-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    if (done := finished(path, config)) is None:
        check(config)
        with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
            done = compute(config, work)
    tables.screen(done["rows"], TITLES)
    print(f"{done['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


def compute(config: ConfigDict, work: Workdir) -> dict[str, Any]:
    """The content of results.json, stage by stage."""
    job = FewShot(config, work)
    data = job.data()
    sheet = contact_sheet(work.path / "figures", data.values)
    backbone = job.backbone(data)
    transform, tasks = job.tables(data, backbone)
    heads = job.heads(backbone, tasks)
    codec = job.codec(heads, tasks)
    caml = job.caml(backbone, tasks)
    generators = train_generators(job, heads, codec, caml, tasks)
    model, parts = assemble(
        job, data, backbone, transform, heads, codec, caml, generators["flow"], tasks
    )

    def measure(context: Any) -> dict[str, Any]:
        rivals = {name: generators[name].values["params"] for name in ("ddpm", "regression")}
        in_context = (job.caml_module(), caml.values["variables"])
        chosen = heads.values["chosen"]
        return evaluate(Evaluation(config, parts, chosen, rivals, in_context), tasks, config.seed)

    inputs = {"sampling": config.sampling, "tasks": config.tasks, "model": model, **generators}
    measured = stage(
        work, "evaluation", {**inputs, "caml": caml, "ddpm_config": config.ddpm}, measure
    )
    results = {
        "experiment": "fewshot",
        "variant": config.variant,
        "seed": config.seed,
        "fingerprint": measured.fingerprint,
        "seconds": round(job.seconds + measured.seconds, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "rows": measured.values["rows"],
        "nfe": measured.values["nfe"],
        "chosen_on_validation": {**heads.values["chosen"], **model.values["chosen"]},
        "backbone_train_accuracy": backbone.values["train_accuracy"],
        "environment": environment(),
    }
    text = introduction(config, results)
    write(
        work.path,
        config,
        results,
        {**measured.values, "introduction": text, "contact_sheet": sheet},
    )
    return results


def introduction(config: ConfigDict, results: dict[str, Any]) -> str:
    """What was run, in a few sentences."""
    task = config.tasks
    task_loss = [n for n in ("codec", "flow", "ddpm") if config[n].task_weight]
    return (
        f"{task.way}-way {task.shot}-shot, {task.test} tasks a set, {task.query} query images a "
        f"class, {config.sampling.samples} heads a task. Means with 95 % intervals over tasks; "
        "`minus probe` is paired. Choices were made on meta-validation tasks.\n\n"
        f"Target heads: {config.targets.kind}, {task.train} tasks. Weight autoencoder: "
        f"{config.codec.form}. Velocity: {config.velocity.kind}, condition "
        f"{' and '.join(config.condition.entries)}. Source: {config.flow.source}, temperature "
        f"{results['chosen_on_validation']['temperature']}. Function evaluations a head: FLoWN "
        f"{results['nfe']['flown']}, DDPM {results['nfe']['ddpm']}. Trained with the query loss of "
        f"decoded heads: {', '.join(task_loss) or 'none'}"
        f"{'; flow also through the solver' if config.flow.ensemble.recipe.steps else ''}."
    )


def finished(path: pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """The results of a finished run with this config in this folder, or None."""
    try:
        stored = json.loads((path / "config.json").read_text())
        results = json.loads((path / "results.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} holds a damaged config.json or results.json: remove the file or choose a new "
            "--workdir."
        ) from error
    return results if stored == json.loads(json.dumps(plain_values(config))) else None


if __name__ == "__main__":
    main()
