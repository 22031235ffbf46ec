"""Few-shot learning with generated heads (FLoWN, section 3.2 and Table 5).

Trains an image encoder on meta-train classes (or takes one that is given), fits one linear head to
each of many small tasks, learns a latent space of these heads and a flow in it, conditioned on the
task's support images; then generates heads for tasks of unseen classes and of foreign data sets,
and compares them with the baselines that use the same support images.

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/. The same command run again goes on where it was stopped, or shows what is there. What
other runs can use, too (backbones, features, target heads), lies in `shared` beside the workdir.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.fewshot_check import check
from experiments.fewshot_generators import Designs, caml_module, train_caml
from experiments.fewshot_measure import Evaluation, Trained, evaluate
from experiments.fewshot_model import assemble
from experiments.fewshot_report import contact_sheet, write
from experiments.fewshot_settings import Setting, settings
from experiments.fewshot_stages import FewShot
from flown_jax.errors import UserError
from flown_jax.evaluation import tables as result_tables
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import plain_values
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
    main_setting, *others = settings(config)
    result_tables.screen(done["rows"], done["titles"], main_setting.name)
    also = f" ({', '.join(s.name for s in others)} in results.md)" if others else ""
    print(f"{main_setting.name}{also}; {done['seconds']:.0f} s of work")
    print(f"everything lies in {path}: results.md, report.html")


def compute(config: ConfigDict, work: Workdir) -> dict[str, Any]:
    """The content of results.json, stage by stage."""
    job = FewShot(config, work)
    data = job.data()
    sheet = work.path / "figures" / "contact_sheet.png"
    encoder, train_accuracy = job.encoder(data)
    raw = job.features(data, encoder)
    if not sheet.exists():
        contact_sheet(sheet, job.images)
    tables = job.tables(data, encoder, raw)
    baselines = job.baselines(tables)
    heads = job.heads(tables, baselines)
    caml = train_caml(job, tables)
    designs = Designs(job, tables, heads, caml)
    design = designs.design("", config)
    flow = designs.flow(design)
    rivals = designs.rivals(design)
    beside = {}
    for name, part in config.beside.items():
        other = designs.design(name, part)
        beside[name] = (other, designs.flow(other))
    model, parts = assemble(job, data, encoder, tables, heads, caml, design, flow)
    trained = Trained(
        parts,
        rivals["ddpm"].values["params"],
        rivals["regression"].values["params"],
        (caml_module(config), caml.values["variables"]),
        {name: (other, found.values["params"]) for name, (other, found) in beside.items()},
    )
    stages = {"model": model, "caml": caml, "baselines": baselines, **rivals}
    stages |= {f"beside-{name}": found for name, (_, found) in beside.items()}
    shared = {"sampling": config.sampling, "ddpm_config": config.ddpm, "tasks": tables.fingerprint}

    def measure(setting: Setting, curves: bool) -> Any:
        chosen = {
            **baselines.values[setting.name],
            **model.values["chosen"][setting.name],
            "target_temperature": _nearest(
                heads.values["chosen"]["target_temperature"], setting.shot
            ),
        }
        return job.stage(
            f"evaluation-{setting.slug}",
            {"setting": setting.name, "base_weights": config.caml.base_weights, **shared, **stages},
            lambda _: evaluate(
                Evaluation(config, setting, trained, chosen), tables, config.seed, curves=curves
            ),
        )

    measured = {s.name: measure(s, i == 0) for i, s in enumerate(job.settings)}
    found = measured[job.settings[0].name].values
    results = {
        "experiment": "fewshot",
        "variant": config.variant,
        "seed": config.seed,
        "fingerprint": measured[job.settings[0].name].fingerprint,
        "tasks": tables.fingerprint,
        "seconds": round(job.seconds, 1),
        "seconds_of_this_run": round(job.seconds_here, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "titles": data.values["titles"],
        "rows": [row for result in measured.values() for row in result.values["rows"]],
        "nfe": found["nfe"],
        "chosen_on_validation": {
            "heads": heads.values["chosen"],
            "baselines": baselines.values,
            "flow": model.values["chosen"],
        },
        "encoder": config.encoder.kind,
        "encoder_train_accuracy": train_accuracy,
        "absent": data.values["absent"],
        "environment": environment(),
    }
    text = introduction(config, results)
    write(work.path, config, results, {**found, "introduction": text, "contact_sheet": sheet})
    return results


def introduction(config: ConfigDict, results: dict[str, Any]) -> str:
    """What was run, in a few sentences."""
    task, main_setting = config.tasks, config.tasks.settings[0]
    chosen = results["chosen_on_validation"]["flow"][main_setting]
    task_loss = [n for n in ("codec", "flow", "ddpm") if config[n].task_weight]
    absent = f" Not on the disk: {', '.join(results['absent'])}." if results["absent"] else ""
    return (
        f"{', '.join(task.settings)}; {task.test} tasks a set, {task.query} query images a class, "
        f"{config.sampling.samples} heads a task. Means with 95 % intervals over tasks; "
        "differences are paired. Choices were made on meta-validation tasks. One meta-model "
        f"makes the heads of all settings; it was trained on {task.way}-way tasks of "
        f"{' and '.join(str(k) for k in task.shots)} support images a class.{absent}\n\n"
        f"Image encoder: {results['encoder']}. Target heads: {config.targets.kind}, {task.train} "
        f"tasks. Weight autoencoder: {config.codec.form}. Velocity: {config.velocity.kind}, "
        f"condition {' and '.join(config.condition.entries)}. Source: {config.flow.source}, "
        f"temperature {chosen['temperature']}. Function evaluations a head: FLoWN "
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


def _nearest(values: dict[str, float], shot: int) -> float:
    """The value of the trained number of support images that is nearest to this one."""
    return values[min(values, key=lambda known: abs(int(known) - shot))]


if __name__ == "__main__":
    main()
