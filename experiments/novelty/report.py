"""What the audit writes: tables, the figure, and in plain words what each number can show."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.novelty.measure import (
    AVERAGE,
    HELD_OUT,
    NOISE,
    ORIGINALS,
    SAMPLES,
    Found,
    rows_of,
)
from experiments.novelty.read import SKIPPED
from experiments.report import write_report
from flown_jax.errors import UserError
from flown_jax.evaluation import tables
from flown_jax.evaluation.audit_figures import accuracy_against
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.weights.statistics import last_states, networks
from flown_jax.weights.zoo import Zoo

_TABLE = "novelty"
_REMARKS = {
    SAMPLES: "ZOO_B, what was made",
    ORIGINALS: "ZOO_A, each against the others",
    HELD_OUT: "networks of ZOO_A that are held out",
    NOISE: "members of ZOO_A and noise of 0.1 deviations: what all copies looks like",
}
_ACCURACY = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_max_minus_originals",
    "accuracy_std",
    "accuracy_min",
    "accuracy_max",
    "accuracy_vote",
    "accuracy_copies",
    "accuracy_others",
    "not_finite",
)
_NOVELTY = (
    "nearest",
    "nearest_smallest",
    "copies",
    "copies_at_most",
    "diversity",
    "direction_diversity",
    "length",
    "duplicates",
    "novel_performant_1",
    "novel_performant_2",
)
_FUNCTION = (
    "error_iou_train",
    "error_iou_among",
    "disagreement_nearest",
    "disagreement_among",
)
_ON_SCREEN = ("accuracy", "nearest", "copies", "diversity", "direction_diversity", "length")
# Number -> what it shows, what it cannot show.
_READING = {
    "nearest": (
        "mean distance to the nearest network of ZOO_A, in tau, the median distance of a network "
        "of ZOO_A to the nearest other: below .5 is called a copy; the row of noise shows how near "
        "copies lie",
        "that a far network is good, or of ZOO_A's kind: untrained ones and noise are far, too",
    ),
    "copies": (
        "samples nearer than half of tau, and the largest share that this count does not rule out",
        "copies of function alone: idle or split units, or the same function with other weights, "
        "are not found",
    ),
    "diversity, directions": (
        "mean distance of two samples in that of two networks of ZOO_A, as it is and between "
        "directions: one network printed many times has 0 and no copies",
        "more than the smaller of the two: a diversity above that of directions with a length "
        "above 1 was bought by longer weights",
    ),
    "error IoU with training": (
        "largest share of errors in common with a network of ZOO_A: 1 for a copy",
        "anything at unequal accuracy or numbers: the largest of many grows with the size of "
        "ZOO_A and with errors, and shrinks with images; compare with the rows of this table",
    ),
    "differs from nearest": (
        "share of images with another answer than the nearest network of ZOO_A",
        "whether the difference is of use: bad networks differ most",
    ),
    "accuracy of copies, of the others": (
        "whether the good samples are the copies",
        "much where one of both groups is small",
    ),
    "novel and performant": (
        "share of samples at least tau (twice tau) away with an accuracy of at least 91.8 % of "
        "ZOO_A's median",
        "diversity: a single such network, printed many times, has 100 %",
    ),
    "best": (
        "the best of the samples, and its difference to the best of as many of ZOO_A",
        "what one gets without labels to choose by",
    ),
}


def free(workdir: Path) -> Path:
    """The folder, if no other command's results stand in it."""
    try:
        there = json.loads((workdir / "results.json").read_text())
    except (FileNotFoundError, ValueError):
        return workdir
    if not isinstance(there, dict) or there.get("experiment") != "novelty":
        raise UserError(f"{workdir} has results of another command: give --workdir another name.")
    return workdir


def write(
    workdir: Path,
    given: argparse.Namespace,
    zoo_a: Zoo,
    zoo_b: Zoo,
    found: Found,
    seconds: float,
) -> dict[str, Any]:
    """Everything in the folder of the results; returns those of results.json."""
    rows, words = rows_of(found), dict(_REMARKS)
    words[f"{AVERAGE}{found.average}"] = f"averages of {found.average} members of ZOO_A"
    picture = workdir / "figures" / "accuracy_against.png"
    accuracy_against(
        picture,
        {name: each.samples for name, each in found.audits.items()},
        {name: _family(name) for name in found.audits},
        title=f"{zoo_b.path} (samples) against {zoo_a.path}",
    )
    sentences = [*verdicts(found), *limits(zoo_a, zoo_b, found)]
    results = {
        "experiment": "novelty",
        "variant": "",
        "seed": given.seed,
        "rows": rows,
        "remarks": sentences,
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "environment": environment(),
        "config": {k: v for k, v in vars(given).items() if k != "workdir"},
    }
    parts = {"Accuracy": _ACCURACY, "Novelty and diversity": _NOVELTY, "Functions": _FUNCTION}
    texts = {
        title: tables.markdown(rows, _TABLE, _TABLE, words if i == 0 else None, shown)
        for i, (title, shown) in enumerate(parts.items())
    }
    texts["How to read the numbers"] = _reading()
    pictures = {
        picture: "Accuracy against the distance to the nearest network of ZOO_A and against "
        "diversity; a small mark a network, a large one at the medians."
    }
    title = f"Novelty audit: {zoo_b.path} against {zoo_a.path}"
    write_report(
        workdir,
        title,
        introduction(zoo_a, zoo_b, found, given),
        sentences,
        texts,
        pictures,
        results,
    )
    return results


def screen(results: Mapping[str, Any]) -> None:
    """The short table and the sentences on the terminal."""
    tables.screen(results["rows"], {_TABLE: "novelty"}, _TABLE, _ON_SCREEN)
    for sentence in results["remarks"]:
        print(sentence)


def introduction(zoo_a: Zoo, zoo_b: Zoo, found: Found, given: argparse.Namespace) -> str:
    """What was compared with what, in plain words."""
    count = len(found.audits[SAMPLES].samples["accuracy"])
    network = f"{zoo_a.spec.model}, {zoo_a.spec.size:,} weights each"
    matched = found.yard.distances.kind == "matched"
    how = (
        "after the hidden units of every pair were matched on images, so that other orders of "
        "units, signs and scales between layers are no novelty"
        if matched
        else "of the weights as they are: a relabelled or rescaled copy would look new, as units "
        "of these networks are not matched"
    )
    return (
        f"{count} networks of {zoo_b.path} (ZOO_B, what a generator made) are compared with "
        f"{len(found.yard.train)} of {zoo_a.path} (ZOO_A, what it learned from): {network}, on "
        f"{found.images:,} images of {given.data}, split {given.split}.\n\n"
        f"Distances are L2, {how}. Tau, the unit of nearest distances, is {found.yard.tau:.4g}; "
        f"that of diversity is {found.yard.pairwise:.4g}, the mean distance of two networks of "
        "ZOO_A. Intervals are over the networks of a row: another run of the same generator is not "
        "in them."
    )


def verdicts(found: Found) -> list[str]:
    """What stands out, a sentence each."""
    own = found.audits[SAMPLES]
    of = {name: metric["value"] for name, metric in own.metrics.items()}
    count = len(own.samples["copy"])
    if "nearest" not in of:
        return ["No sample has finite weights."]
    sentences = [
        f"{of['copies']:.0f} of {count} samples are copies (nearer to a network of ZOO_A than half "
        f"of tau); a share of up to {100 * of['copies_at_most']:.0f} % is not ruled out."
    ]
    if of.get("not_finite"):
        sentences.append(
            f"{of['not_finite']:.0f} of {count} samples have weights that are not finite: they "
            "count as wrong about every image and have no distances."
        )
    if "accuracy_copies" in of and "accuracy_others" in of:
        sentences.append(
            f"Copies have {100 * of['accuracy_copies']:.1f} %, the others "
            f"{100 * of['accuracy_others']:.1f} %."
        )
    if of["diversity"] is not None:
        sentences.append(
            f"Two samples differ {of['diversity']:.2f} times as much as two networks of ZOO_A, in "
            f"direction {of['direction_diversity']:.2f} times, at {of['length']:.2f} times the "
            f"length; {of['duplicates']:.0f} repeat another sample."
        )
        if of["diversity"] > 1.2 * of["direction_diversity"] and of["length"] > 1.05:
            sentences.append(
                "Part of the distance is length: the smaller number is the one to compare."
            )
    if HELD_OUT in found.audits:
        fresh = found.audits[HELD_OUT].metrics["nearest"]["value"]
        sentences.append(
            f"The nearest network of ZOO_A is {of['nearest']:.2f} tau away in the mean, from a "
            f"held-out network {fresh:.2f} tau."
        )
    return sentences


def limits(zoo_a: Zoo, zoo_b: Zoo, found: Found) -> list[str]:
    """What these two zoos cannot show, a sentence each."""
    samples, members = len(found.audits[SAMPLES].samples["copy"]), len(found.yard.own)
    sentences = []
    if found.yard.distances.kind != "matched":
        sentences.append(
            "These networks are compared as they are: no copies with other orders or scales of "
            "units are found."
        )
    if min(samples, members) < 24:
        sentences.append(
            f"There are {members} networks of ZOO_A and {samples} samples: of fewer than 24 each "
            "number is rough."
        )
    if not 0.5 <= samples / members <= 2:
        sentences.append(
            f"The zoos are of unequal size ({members} and {samples}): largest error similarities "
            "and smallest distances change with it; draw as many of both by --networks."
        )
    if len(set(networks(zoo_a.table))) == 1:
        sentences.append(
            "ZOO_A is of one training run, whose states are near-copies of each other: tau is the "
            "distance of neighbours, and distances above it say little."
        )
    elif len(found.yard.train) > members:
        sentences.append(
            f"ZOO_A has several states of a network: samples are compared with all "
            f"{len(found.yard.train)}, units are of the {members} last ones."
        )
    if len(last_states(zoo_b.table)) < len(zoo_b):
        sentences.append("Of each network of ZOO_B the last state is taken.")
    for name, each in (("A", zoo_a), ("B", zoo_b)):
        if skipped := each.recipe.get(SKIPPED):
            sentences.append(f"{len(skipped)} of ZOO_{name} were left out: {skipped[0]}.")
    few = found.audits[SAMPLES].metrics.get("error_iou_train", {"n": samples})["n"]
    if few < samples:
        sentences.append(
            f"{samples - few} samples have fewer than 20 errors, or are not finite, and no error "
            "similarity."
        )
    if zoo_a.buffers is not None:
        sentences.append(
            "Networks run with their own running statistics; distances leave them out."
        )
    return sentences


def _reading() -> str:
    lines = ["| number | what it shows | what it cannot show |", "|---|---|---|"]
    lines += [f"| {name} | {can} | {cannot} |" for name, (can, cannot) in _READING.items()]
    return "\n".join(lines)


def _family(name: str) -> str:
    if name == SAMPLES:
        return "generator"
    return "networks" if name in (ORIGINALS, HELD_OUT) else "no model"
