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

import pathlib
from typing import Any

from ml_collections import ConfigDict

from experiments import command
from experiments.codec import same_codec
from experiments.features import describe_images, encode, images_of, train_encoder
from experiments.fewshot.check import check
from experiments.fewshot.designs import flow_stage, make_design, rival_stages
from experiments.fewshot.heads import baselines_stage, heads_stage
from experiments.fewshot.measure import evaluation_stage
from experiments.fewshot.model import model_stage
from experiments.fewshot.report import contact_sheet, introduction, write
from experiments.report import REPORT, heading, standing
from experiments.settings import settings
from experiments.stages import Stages
from experiments.tasks import caml_stage, draw_tables
from flown_jax.evaluation import tables as result_tables
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.parallel import leads
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
    check(config)
    default = f"workdirs/fsl-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    # A finished run goes through its stages, too: they see whether its data are still the same.
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        done = compute(config, work)
    main_setting, *others = config.tasks.settings
    result_tables.screen(done["rows"], done["titles"], main_setting)
    also = f" ({', '.join(others)} in results.md)" if others else ""
    print(f"{main_setting}{also}; {done['seconds']:.0f} s of work")
    print(f"everything lies in {path}: results.md, report.html")


def compute(config: ConfigDict, work: Workdir) -> dict[str, Any]:
    """The content of results.json, stage by stage."""
    stages = Stages(work, share=config.share)

    # Images, their features, and the tasks of every set.
    data = describe_images(stages, config.data, config.tasks)
    encoder, train_accuracy = train_encoder(stages, config, data)
    features = encode(stages, config.data, data, encoder)
    tables = draw_tables(config, data, features)
    sheet = work.path / "figures" / "contact_sheet.png"
    if leads() and not sheet.exists():
        contact_sheet(sheet, images_of(config.data))

    # What is learned: target heads, CAML, an autoencoder of heads, a flow in its latents.
    baselines = baselines_stage(stages, config, tables)
    heads = heads_stage(stages, config, tables, baselines)
    caml = caml_stage(stages, config, tables)
    drawn: dict[str, Any] = {"train_query": config.tasks.train_query, "seed": config.seed}
    common = {"heads": heads, "train": tables.train, **drawn}
    design = make_design(stages, "", config, tables, heads, caml, **drawn)
    flow = flow_stage(stages, design, common)
    rivals = rival_stages(stages, design, config, common)
    beside = {}
    for name, part in config.beside.items():
        same = design.codec if same_codec(part.codec, config.codec) else None
        other = make_design(stages, name, part, tables, heads, caml, **drawn, codec=same)
        beside[name] = (other, flow_stage(stages, other, common))
    model = model_stage(stages, config, data, encoder, tables, heads, design, flow)

    # What it is worth, setting by setting.
    trained = {"baselines": baselines, "heads": heads, "caml": caml, "model": model, **rivals}
    measured = {
        s.name: evaluation_stage(stages, config, s, tables, trained, beside, curves=i == 0)
        for i, s in enumerate(settings(config.tasks.settings))
    }
    main_one = measured[config.tasks.settings[0]]
    results = {
        **heading("fewshot", config, stages),
        "titles": data.values["titles"],
        "rows": [row for result in measured.values() for row in result.values["rows"]],
        "nfe": main_one.values["nfe"],
        "chosen_on_validation": {
            "heads": heads.values["chosen"],
            "baselines": baselines.values,
            "flow": model.values["chosen"],
            "sampling_temperatures": {
                name: result.values["sampling_temperatures"] for name, result in measured.items()
            },
        },
        "encoder": config.encoder.kind,
        "encoder_train_accuracy": train_accuracy,
        "absent": data.values["absent"],
    }
    if (there := standing(work.path, results, *REPORT)) is not None:
        return there
    shown = {**main_one.values, "contact_sheet": sheet}
    write(work.path, config, results, introduction(config, results), shown)
    return results


if __name__ == "__main__":
    main()
