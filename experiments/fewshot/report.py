"""What the few-shot experiment writes: tables, figures, a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.features import encoder_sentence
from experiments.report import write_report
from flown_jax.data.datasets import FewShotData
from flown_jax.evaluation import figures, tables

REMARKS = {
    "chance": "one class in n",
    "class_mean": "nearest class mean; no training",
    "cosine_class_mean": "cosine to the class mean (Meta-Baseline's classifier)",
    "linear_probe": "AdamW on the support images, the recipe of the target heads",
    "ridge": "closed form on the support images",
    "logistic_regression": "scikit-learn's L-BFGS; its penalty chosen on validation tasks",
    "vae_reconstruction": "the probe's head, encoded and decoded",
    "caml": "in-context transformer over the same features; no head",
    "caml_and_base": "CAML's log-probabilities plus the class-mean head's logits, untrained",
    "regression_noisy_ensemble": "{samples} regressed heads of conditions with the training noise, "
    "averaged",
    "flat_unet_ensemble": "the paper's shape, one flat latent and a UNet, with the task loss",
    "with_task_loss_ensemble": "autoencoder and flow with the task loss",
    "with_mlp_codec_ensemble": "an MLP autoencoder in the place of AutoencoderKL",
    "with_gaussian_source_ensemble": "the flow starts from N(0, I)",
    "with_features_ensemble": "conditioned on support features in the place of CAML's",
    "ours_ensemble": "all of this project's own design, on the same target heads",
    "flat_unet_plain_ensemble": "the same without the task loss: reconstruction and flow alone",
    "regression": "the flow's network and decoder, trained to give one head at once",
    "ddpm_mean": "DDPM in the same latent with the same network, each head by itself{fewer}",
    "ddpm_ensemble": "the average of its probabilities{fewer}",
    "ddpm_top3_support": "its 3 heads of {ddpm} that fit the support best",
    "flown_mean": "each generated head by itself",
    "flown_ensemble": "the average of the probabilities of all generated heads",
    "flown_top3_support": "the 3 heads of {samples} that fit the support best",
    "flown_top3_query": "the paper's rule: the 3 of {samples} best on the query labels; "
    "a selection on test labels, not a result",
    "flown_other_support": "heads generated from another task's support: must be chance",
}


def remarks(config: ConfigDict) -> dict[str, str]:
    """What each method is in a few words, and how many heads it has."""
    samples = config.sampling.samples
    ddpm = min(config.ddpm.samples, samples)
    fewer = f"; {ddpm} heads a task, where the flow has {samples}" if ddpm < samples else ""
    return {k: v.format(samples=samples, ddpm=ddpm, fewer=fewer) for k, v in REMARKS.items()}


def contact_sheet(path: Path, data: FewShotData) -> None:
    """A picture of some classes of every split and of the foreign sets."""
    rows, titles = [], []
    for split, count in (("train", 8), ("validation", 4), ("test", 8)):
        for c in data.split[split][:count]:
            rows.append(data.classes.images[c][:16])
            titles.append(f"{split}: {data.classes.names[c][:26]}")
    for name, part in data.foreign.items():
        for images, label in list(zip(part.images, part.names, strict=True))[:10:2]:
            rows.append(images[:16])
            titles.append(f"{name.replace('_', ' ')}: {label[:26]}")
    figures.contact_sheet(path, rows, titles, "Classes share nothing between splits")


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
        f"tasks. Weight autoencoder: {_autoencoder(config.codec)}. "
        f"Velocity: {config.velocity.kind}, condition {' and '.join(config.condition.entries)}. "
        f"Source: {config.flow.source}, temperature {chosen['temperature']}. Function evaluations "
        f"a head: FLoWN {results['nfe']['flown']}, DDPM {results['nfe']['ddpm']}. Trained with the "
        f"query loss of decoded heads: {', '.join(task_loss) or 'none'}"
        f"{'; flow also through the solver' if config.flow.ensemble.recipe.steps else ''}."
        f"{encoder_sentence(config.encoder, 'classes of the test tasks')}"
    )


def _autoencoder(codec: ConfigDict) -> str:
    return codec.form if codec.encoder == "vae" else f"a {codec.encoder} encoder, {codec.form}"


def write(
    workdir: Path,
    config: ConfigDict,
    results: dict[str, Any],
    text: str,
    found: dict[str, Any],
) -> None:
    """results.md, report.html, results.json and the figures.

    Args:
      results: the content of results.json. text: the introduction.
      found: of the main setting, as the evaluation's stage has it, with the `contact_sheet`.
    """
    pictures = _pictures(workdir / "figures", results, found, config.tasks.settings[0])
    rows, titles, texts = results["rows"], results["titles"], {}
    for setting in config.tasks.settings:
        drawn = tables.differences(rows, titles, setting, "flown_ensemble")
        heading = f"{setting}: paired differences of `flown_ensemble`, accuracy in points"
        texts[heading] = f"{drawn}\n\n{tables.note(rows, titles, setting)}"
        for name, title in titles.items():
            drawn = tables.markdown(
                rows, name, setting, remarks=remarks(config), shown=tables.SUMMARY
            )
            about = tables.note(rows, [name], setting, tables.SUMMARY)
            texts[f"{setting}. {title}"] = f"{drawn}\n\n{about}"
    title = f"Few-shot heads: variant {config.variant}, seed {config.seed}"
    write_report(workdir, title, text, [], texts, pictures, results)


def _pictures(
    folder: Path, results: dict[str, Any], found: dict[str, Any], setting: str
) -> dict[Path, str]:
    """The figures of the main setting, with their captions."""
    rows, titles = results["rows"], results["titles"]
    pictures: dict[Path, str] = {}
    figures.accuracy_bars(folder / "accuracy.png", rows, titles, setting)
    pictures[folder / "accuracy.png"] = (
        f"{setting}: accuracy with 95 % interval over tasks; dotted: the probe."
    )
    kinds = {"mean": "single head", "ensemble": "averaged", "top_support": "top by support"}
    of_nfe = {name: found["curves"][name]["nfe"] for name in titles}
    axis = [point["nfe"] for point in next(iter(of_nfe.values()))]
    labels = {name: name.replace("_", " ") for name in titles}
    figures.curves(
        folder / "accuracy_against_nfe.png",
        axis,
        {
            name: {label: [100 * point[kind] for point in points] for kind, label in kinds.items()}
            for name, points in of_nfe.items()
        },
        x_label="function evaluations (Euler)",
        y_labels={name: f"accuracy %, {label}" for name, label in labels.items()},
    )
    pictures[folder / "accuracy_against_nfe.png"] = "Accuracy against function evaluations."
    figures.curves(
        folder / "nll_against_nfe.png",
        axis,
        {"nll": {labels[name]: [p["nll"] for p in points] for name, points in of_nfe.items()}},
        x_label="function evaluations (Euler)",
        y_labels={"nll": "NLL of the averaged heads, nats"},
    )
    pictures[folder / "nll_against_nfe.png"] = "Likelihood against function evaluations."
    of_heads = {name: found["curves"][name]["heads"] for name in titles}
    figures.curves(
        folder / "heads_averaged.png",
        [point["heads"] for point in next(iter(of_heads.values()))],
        {
            metric: {labels[name]: [p[metric] for p in points] for name, points in of_heads.items()}
            for metric in ("accuracy", "nll", "ece")
        },
        x_label="generated heads averaged",
        y_labels={"accuracy": "accuracy", "nll": "NLL, nats", "ece": "calibration error"},
    )
    pictures[folder / "heads_averaged.png"] = "What averaging generated heads gains."
    figures.reliability(
        folder / "reliability.png",
        {
            titles[name]: {m: (d["confidence"], d["right"]) for m, d in of_set.items()}
            for name, of_set in found["reliability"].items()
        },
    )
    pictures[folder / "reliability.png"] = "Share of right predictions against confidence."
    pictures[found["contact_sheet"]] = "Images of the classes, one row a class."
    return pictures
