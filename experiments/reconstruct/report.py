"""What the experiment writes: tables, sentences, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.one_zoo import Networks
from experiments.report import write_report
from flown_jax.evaluation import tables

TITLES = {
    "train": "Networks that were learned from",
    "held_out": "Held-out networks",
    "permuted": "Copies of training networks with their units in another order",
}
REMARKS = {
    "originals": "the networks themselves",
    "mean": "the mean of the training networks, whatever is encoded",
    "vae_mlp": "MLP encoder",
    "graph": "graph encoder, relational transformer",
    "graph_pna": "graph encoder, PNA",
    "pca": "as many principal components as the latent has numbers, or as there are",
    "shuffled": "graph encoder; every batch in new orders of units, which are to be decoded",
}
_ON_SCREEN = ("reconstruction_r2", "reconstruction_r2_minus_vae_mlp", "accuracy", "accuracy_std")


def titles(results: Mapping[str, Any]) -> dict[str, str]:
    """Set -> title, of the sets that have rows."""
    return {name: TITLES[name] for name in dict.fromkeys(row["set"] for row in results["rows"])}


def remarks(networks: Networks, rows: list[dict[str, Any]]) -> list[str]:
    """Sentences on what the tables cannot show."""
    if networks.remark is not None:
        return [networks.remark]
    at = {(row["method"], row["metric"]): row["value"] for row in rows if row["set"] == "train"}
    return [
        "The accuracy of decoded states proves nothing on a trajectory: their mean, which a "
        f"decoder gives that ignores its latent, has {100 * at['mean', 'accuracy']:.1f} %, the "
        f"states themselves {100 * at['originals', 'accuracy']:.1f} %. R2 and the deviation of "
        "the accuracies tell what is kept.",
        "Where a trajectory's rate falls to zero its last states are almost one network; states "
        "are held out at equal distances therefore, between others that are learned from.",
    ]


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables of a run on the terminal."""
    tables.screen(results["rows"], titles(results), shown=_ON_SCREEN)
    for name, seconds in results["stage_seconds"].items():
        print(f"{name}: {seconds:.0f} s, peak until then {results['peaks_gib'][name]} GiB")


def write(
    workdir: Path, config: ConfigDict, networks: Networks, results: Mapping[str, Any]
) -> None:
    """results.md and report.html; results.json last, as the mark of the end."""
    rows, texts = results["rows"], {}
    for name, title in titles(results).items():
        drawn = tables.markdown(rows, name, remarks=REMARKS)
        texts[title] = f"{drawn}\n\n{tables.note(rows, [name], 'main')}".rstrip()
    lines = ["| method | seconds | peak of the process until then, GiB |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {seconds:.0f} | {results['peaks_gib'][name]} |"
        for name, seconds in results["stage_seconds"].items()
    ]
    texts["Cost of the training"] = "\n".join(lines)
    title = f"Weight autoencoders of {config.zoo}: variant {config.variant}, seed {config.seed}"
    sentences = list(results["remarks"])
    write_report(workdir, title, introduction(config, networks), sentences, texts, {}, results)


def introduction(config: ConfigDict, networks: Networks) -> str:
    """What was learned from what, in a paragraph."""
    how, counts = config.codec.recipe, (len(networks.train), len(networks.held_out))
    kind = "states of one network" if networks.single else "networks, each of a seed of its own,"
    left = f"one in {config.held_out_every}" if networks.single else "those of other seeds"
    images = config.evaluation.test_images
    return (
        f"Autoencoders of {networks.spec.size:,} weights learn from {counts[0]} {kind} for "
        f"{networks.dataset}; {counts[1]} are held out, {left}. All that are trained take "
        f"{how.steps} steps of {how.batch} networks and have one form of decoder. R2 is 1 minus "
        "the squared distances of decoded networks over those of the mean of the training "
        "networks, in standardised coordinates, summed over networks; accuracies are on "
        f"{f'the first {images:,}' if images else 'all'} test images. Of the permuted copies R2 "
        "is to the networks that were not permuted."
    )
