"""What the retrieval experiment writes: tables, figures, a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flown_jax.evaluation import tables
from flown_jax.evaluation import zoo_retrieval_figures as figures
from flown_jax.evaluation.report import html_page
from flown_jax.files import write_bytes, writing

METHODS = {
    "originals": "the zoo's training networks themselves",
    "held_out": "fresh networks: the zoo's recipe, other seeds",
    "nearest_by_condition": "a training network of the set whose conditions are nearest",
    "aligned_mean": "the mean of all training networks; one network",
    "average_of_two": "the mean of two training networks",
    "average_of_two_trained": "the mean of two, trained on",
    "kaiming_trained": "a random start, trained for as many steps",
    "kde": "kernel density in the latents of `flown`",
    "pca": "a flow in the latents of a PCA of the same size",
    "ddpm": "a DDPM in the latents of `flown`",
    "flown": "the main design",
    "flown_weights": "the paper's objective",
    "flown_task": "the task loss without reconstruction",
    "flown_raw": "as `flown`, networks not aligned",
    "flown_prior": "the flow starts from networks of another data set, as in the paper",
    "flown_prior_mended": "the same, and the encoder also reconstructs them",
}
STARTS = {
    "flown": "generated for the set's support images",
    "zoo_start": "the zoo's own random initialisation",
    "kaiming_normal": "random, Kaiming normal",
    "raw_mean": "the mean of the training networks as they are",
    "aligned_mean": "their mean after alignment",
    "trained_other": "training networks of another set",
    "originals": "training networks of the set itself, trained on",
}
# The paper's Table 2: of other zoos, the mean of the best five of the samples.
PAPER = {
    "paper_original": {"mnist": 0.911, "fashion_mnist": 0.727, "cifar10": 0.487, "stl10": 0.390},
    "paper_flown": {"mnist": 0.917, "fashion_mnist": 0.738, "cifar10": 0.503, "stl10": 0.408},
    "paper_flown_prior": {"mnist": 0.63, "fashion_mnist": 0.419, "cifar10": 0.226, "stl10": 0.188},
}
_PAPER_REMARKS = {
    "paper_original": "the paper's Table 2; other zoos",
    "paper_flown": "the paper's Table 2; other zoos, top 5 of the samples",
    "paper_flown_prior": "the paper's Table 2; the same with its mini-ImageNet prior",
}
_SHOWN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_std",
    "accuracy_min",
    "accuracy_top5",
    "accuracy_ensemble",
    "nn",
    "copies",
    "diversity",
    "duplicates",
    "error_iou_among",
    "error_iou_train",
    "right_set",
)
_ON_SCREEN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_top5",
    "copies",
    "diversity",
)
_INTERVALS = ("accuracy", "accuracy_minus_originals")  # the others' stand in results.json
_SUMMARY = ("accuracy", "accuracy_minus_originals", "diversity", "copies")
_STRIPS = ("originals", "flown", "flown_weights")


def remarks(config: ConfigDict) -> dict[str, str]:
    """What each method is in a few words, and whether its own training saw images and labels."""
    main = bool(config.codec.task_weight)
    trained = {"average_of_two_trained": True, "kaiming_trained": True, "flown": main}
    for name, changes in config.beside.items():
        weight = changes.get("codec", {}).get("task_weight", config.codec.task_weight)
        trained[f"flown_{name}"] = bool(weight)
    for name in ("flown_prior", "flown_prior_mended"):
        trained[name] = trained.get("flown_weights", main)  # its networks and objective
    tags = {
        method: "trained on images" if saw else "weights only" for method, saw in trained.items()
    }
    tags["pca"] = "weights only"
    found = {}
    for method in dict.fromkeys([*METHODS, *trained]):
        text = METHODS.get(method, "`flown` with the changes that beside names")
        if method in tags:
            text = f"{tags[method]}: {text}"
        elif method in ("kde", "ddpm") and main:
            text += ", whose autoencoder was trained on images"
        found[method] = text
    return found | _PAPER_REMARKS


def prior_sentence(facts: Mapping[str, float]) -> str:
    """What explains the rows of the prior, of `PriorResult.facts`."""
    return (
        f"prior: its networks are right on {100 * facts['prior_train_accuracy']:.1f} % of their "
        "training images. Where the flow trains the encoder, its latents end with a standard "
        f"deviation of {facts['prior_std']:.2f} and the targets' with {facts['targets_std']:.2f} "
        f"(1 before); in the mended autoencoder the prior's have {facts['prior_std_mended']:.2f}. "
        f"The two decoders leave {facts['residual']:.2f} and {facts['residual_mended']:.2f} of the "
        "targets' spread out."
    )


def write(
    workdir: Path, config: ConfigDict, results: dict[str, Any], found: dict[str, Any]
) -> None:
    """results.md, report.html and the figures; results.json last, as the mark of the end.

    Args:
      results: the content of results.json.
      found: what is shown and not kept there: `introduction` (text), `remarks` (sentences),
        `confusion` {set shown: {set that came out: share}}, `curves` {set: {start: {"epochs",
        "mean", "std"}}}; `prior_curves` {"steps", name: losses} and `accuracies`
        {set: {method: of each network}}, where there are any.
    """
    pictures = _pictures(workdir / "figures", results, found)
    texts = _tables(config, results, found)
    title = f"Retrieval and initialisation: variant {config.variant}, seed {config.seed}"
    sentences = found.get("remarks") or []
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in texts.items())
    notes = "".join(f"- {sentence}\n" for sentence in sentences)
    head = f"# {title}\n\n{found['introduction']}\n\n{notes}" + ("\n" if notes else "")
    page = html_page(title, "\n\n".join([found["introduction"], *sentences]), texts, pictures)
    with writing(workdir):
        _text(workdir / "results.md", f"{head}{body}\n")
        _text(workdir / "report.html", page)
        _text(workdir / "results.json", json.dumps(results, indent=1) + "\n")


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables of a run on the terminal: each set's networks, then the starts."""
    rows, titles = results["rows"], results["titles"]
    sets = _sets(rows, titles, "retrieval")
    tables.screen(_without_intervals(rows, ("accuracy",)), sets, "retrieval", _ON_SCREEN)
    sets = _sets(rows, titles, "initialise")
    named = {name: f"{title}: accuracy % after fine-tuning" for name, title in sets.items()}
    tables.screen(_without_intervals(rows, ()), named, "initialise", None, "start")


def summary(rows: list[dict[str, Any]], sets: Mapping[str, str]) -> str:
    """Accuracy, difference to the originals, diversity and copies of every method and set.

    Args:
      sets: set -> title.
    """
    of_set = {name: tables.pivot(rows, name, "retrieval") for name in sets}
    methods = dict.fromkeys(row["method"] for row in rows if row["table"] == "retrieval")
    counts = {
        (row["method"], row["set"]): row["n"]
        for row in rows
        if row["table"] == "retrieval" and row["metric"] == "copies"
    }
    lines = [_line(["method", *sets.values()]), "|" + "---|" * (1 + len(sets))]
    for method in methods:
        cells = []
        for name in sets:
            of = of_set[name].get(method, {})
            accuracy, minus, diversity, copies = (
                tables.text_cell(m, (of[m][0], None), of=counts.get((method, name)))
                if m in of
                else "-"
                for m in _SUMMARY
            )
            cells.append(f"{accuracy} ({minus}) · {diversity} · {copies}" if of else "")
        lines.append(_line([f"`{method}`", *cells]))
    return "\n".join(lines)


def confusion(shares: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    """Percent of the support draws, a line a set shown, a column a set that came out."""
    columns = list(dict.fromkeys(name for of in shares.values() for name in of))
    head = ["set shown", *(titles.get(name, name) for name in columns)]
    lines = [_line(head), "|" + "---|" * len(head)]
    for shown, of in shares.items():
        cells = [f"{100 * of.get(name, 0.0):.1f}" for name in columns]
        lines.append(_line([titles.get(shown, shown), *cells]))
    return "\n".join(lines)


def _tables(
    config: ConfigDict, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, str]:
    """Heading -> table in Markdown."""
    rows, titles = results["rows"], results["titles"]
    sets, words = _sets(rows, titles, "retrieval"), remarks(config)
    texts = {"All sets: accuracy % (minus originals) · diversity · copies": summary(rows, sets)}
    shown = _without_intervals(rows, _INTERVALS) + _paper_rows(sets)
    for name, title in sets.items():
        texts[f"Retrieval: {title}"] = tables.markdown(shown, name, "retrieval", words, _SHOWN)
    if found["confusion"]:
        texts["Which set's networks came out, % of the support draws"] = confusion(
            found["confusion"], titles
        )
    tuned = _with_std(rows, found["curves"])
    for name, title in _sets(rows, titles, "initialise").items():
        heading = f"Initialisation: {title}, accuracy % after fine-tuning, mean ± std over runs"
        texts[heading] = tables.markdown(tuned, name, "initialise", STARTS, first="start")
    return texts


def _pictures(
    folder: Path, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[Path, str]:
    """The figures that there is something for, with their captions."""
    rows, titles = results["rows"], results["titles"]
    captions: dict[Path, str] = {}
    if sets := _sets(rows, titles, "retrieval"):
        path = folder / "accuracy_against_diversity.png"
        figures.accuracy_against_diversity(path, rows, sets)
        captions[path] = (
            "Accuracy against diversity of every method; dotted: the originals' mean; crosses: "
            "more than one network in 24 is a copy. A single network stands at diversity 0."
        )
    if accuracies := _strips(found.get("accuracies") or {}):
        path = folder / "accuracies.png"
        figures.accuracy_strips(path, accuracies, titles)
        captions[path] = "The accuracy of every network, a point each; the ticks are means."
    if found["confusion"]:
        path = folder / "confusion.png"
        figures.confusion(path, found["confusion"], titles)
        captions[path] = "Which set's networks came out for which set that was shown."
    if found["curves"]:
        path = folder / "fine_tuning.png"
        figures.fine_tuning(path, found["curves"], titles, _originals(rows))
        captions[path] = (
            "Accuracy while generated weights and other starts are trained on; bands: one standard "
            "deviation over runs; dotted: the zoo's own networks."
        )
    if found.get("prior_curves"):
        path = folder / "prior_losses.png"
        figures.losses(path, found["prior_curves"])
        captions[path] = "Loss of the flow from each source (the paper's Figure 2)."
    return captions


def _sets(rows: list[dict[str, Any]], titles: Mapping[str, str], table: str) -> dict[str, str]:
    """Set -> title of the sets that a table has rows for, in the order of the titles."""
    there = dict.fromkeys(row["set"] for row in rows if row["table"] == table)
    return {name: titles.get(name, name) for name in [*titles, *there] if name in there}


def _without_intervals(rows: list[dict[str, Any]], but: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows with intervals for these metrics only; a table has no room for all."""
    return [row if row["metric"] in but else {**row, "ci95": None} for row in rows]


def _paper_rows(sets: Mapping[str, str]) -> list[dict[str, Any]]:
    """The paper's own figures of these sets, as rows."""
    return [
        {"table": "retrieval", "method": method, "set": name, "metric": "accuracy_top5"}
        | {"value": of_set[name], "ci95": None, "n": 5}
        for method, of_set in PAPER.items()
        for name in sets
        if name in of_set
    ]


def _with_std(rows: list[dict[str, Any]], curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of fine-tuning with the standard deviation over runs in the place of the half width."""
    std = {
        (name, start, f"accuracy_epoch_{epoch}"): value
        for name, of_start in curves.items()
        for start, curve in of_start.items()
        for epoch, value in zip(curve["epochs"], curve["std"], strict=True)
    }
    found = []
    for row in rows:
        if row["table"] == "initialise":
            value = std.get((row["set"], row["method"], row["metric"]))
            found.append({**row, "ci95": value if row["n"] > 1 else None})
    return found


def _originals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Set -> mean accuracy of the zoo's own networks."""
    return {
        row["set"]: row["value"]
        for row in rows
        if (row["table"], row["method"], row["metric"]) == ("retrieval", "originals", "accuracy")
    }


def _strips(accuracies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the methods that are drawn network by network."""
    found = {
        name: {method: of[method] for method in _STRIPS if method in of}
        for name, of in accuracies.items()
    }
    return {name: of for name, of in found.items() if of}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())
