"""What the few-shot experiment writes: tables, figures, a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flown_jax.evaluation import figures, tables
from flown_jax.evaluation.report import html_page
from flown_jax.files import write_bytes, writing

TITLES = {
    "in_distribution": "In distribution: characters of the meta-test classes",
    "out_of_distribution": "Out of distribution: handwritten digits",
}
REMARKS = {
    "chance": "one class in n",
    "class_mean": "nearest class mean; no training",
    "linear_probe": "AdamW on the support images, the recipe of the target heads",
    "ridge": "closed form on the support images",
    "vae_reconstruction": "the probe's head, encoded and decoded",
    "caml": "in-context transformer over the same features; no head",
    "regression": "the flow's network and decoder, trained to give one head at once",
    "ddpm_mean": "DDPM in the same latent with the same network, each head by itself",
    "ddpm_ensemble": "the average of its probabilities",
    "ddpm_top3_support": "its 3 heads of 50 that fit the support best",
    "flown_mean": "each generated head by itself",
    "flown_ensemble": "the average of the probabilities of all generated heads",
    "flown_top3_support": "the 3 heads of 50 that fit the support best",
    "flown_top3_query": "the paper's rule: the 3 of 50 best on the query labels; "
    "a selection on test labels, not a result",
    "flown_other_support": "heads generated from another task's support: must be chance",
}


def contact_sheet(folder: Path, data: dict[str, Any]) -> Path:
    """A picture of some classes of every split and of the foreign set."""
    from unicodedata import name

    rows, titles = [], []
    for split, count in (("train", 8), ("validation", 4), ("test", 8)):
        for c in data["split"][split][:count]:
            rows.append(data["images"][c][:16])
            titles.append(f"{split}: {name(data['characters'][c], '?').lower()[:26]}")
    for digit in range(0, 10, 2):
        images = data["foreign_images"][data["foreign_labels"] == digit]
        rows.append(images[:16])
        titles.append(f"foreign: digit {digit}")
    path = folder / "contact_sheet.png"
    figures.contact_sheet(path, np.stack(rows), titles, "Classes share nothing between splits")
    return path


def write(
    workdir: Path, config: ConfigDict, results: dict[str, Any], found: dict[str, Any]
) -> None:
    """results.md, report.html and the figures; results.json last, as the mark of the end.

    Args:
      results: the content of results.json.
      found: as `evaluate` returns it, with a text `introduction` and the `contact_sheet`.
    """
    folder = workdir / "figures"
    rows = results["rows"]
    pictures = {found["contact_sheet"]: "Images of the classes, one row a class."}
    figures.accuracy_bars(folder / "accuracy.png", rows, TITLES)
    pictures[folder / "accuracy.png"] = "Accuracy with 95 % interval over tasks; dotted: the probe."
    kinds = {"mean": "single head", "ensemble": "averaged", "top_support": "top by support"}
    figures.curves(
        folder / "accuracy_against_nfe.png",
        [point["nfe"] for point in found["curves"]["in_distribution"]["nfe"]],
        {
            name: {
                label: [100 * point[kind] for point in found["curves"][name]["nfe"]]
                for kind, label in kinds.items()
            }
            for name in TITLES
        },
        x_label="function evaluations (Euler)",
        y_labels={name: f"accuracy %, {name.replace('_', ' ')}" for name in TITLES},
    )
    pictures[folder / "accuracy_against_nfe.png"] = "Accuracy against function evaluations."
    figures.curves(
        folder / "heads_averaged.png",
        [point["heads"] for point in found["curves"]["in_distribution"]["heads"]],
        {
            metric: {
                name.replace("_", " "): [p[metric] for p in found["curves"][name]["heads"]]
                for name in TITLES
            }
            for metric in ("accuracy", "nll", "ece")
        },
        x_label="generated heads averaged",
        y_labels={"accuracy": "accuracy", "nll": "NLL, nats", "ece": "calibration error"},
    )
    pictures[folder / "heads_averaged.png"] = "What averaging generated heads gains."
    figures.reliability(
        folder / "reliability.png",
        {
            TITLES[name]: {m: (d["confidence"], d["right"]) for m, d in of_set.items()}
            for name, of_set in found["reliability"].items()
        },
    )
    pictures[folder / "reliability.png"] = "Share of right predictions against confidence."
    texts = {title: tables.markdown(rows, name, remarks=REMARKS) for name, title in TITLES.items()}
    title = f"Few-shot heads: variant {config.variant}, seed {config.seed}"
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in texts.items())
    with writing(workdir):
        _text(workdir / "results.md", f"# {title}\n\n{found['introduction']}\n\n{body}\n")
        _text(workdir / "report.html", html_page(title, found["introduction"], texts, pictures))
        _text(workdir / "results.json", json.dumps(results, indent=1) + "\n")


def _text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())
