"""The card of a stored meta-model, Markdown: its numbers are the run's, or measured now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.export_model.digits import SAMPLES, SHOTS, Shown
from experiments.export_model.run import Run

# Rows that stand on the card, the meta-model's own first.
_ROWS = {
    "fewshot": ("flown_ensemble", "flown_mean", "regression", "linear_probe", "class_mean"),
    "retrieval": ("flown", "originals", "held_out", "average_of_two_trained"),
    "unconditional": ("flown", "originals", "held_out"),
}
# How far a meta-model's own networks are from one another, the zoo's being 1.
_APART = (
    ("diversity", "diversity"),
    ("direction_diversity", "diversity of directions"),
    ("length", "length"),
)
_LIMITS = {
    "fewshot": [
        "It makes linear heads on its own frozen image encoder and nothing else; images must have "
        "the size that the encoder was trained on.",
        "What it knows of images is the training classes: the further yours are from these, the "
        "more the closed forms beside it are worth. Compare with a linear probe on your own data.",
        "One seed; the intervals are over test tasks of this run alone.",
    ],
    "retrieval": [
        "It makes networks of one architecture for the data sets that it was trained on. Shown "
        "images of another data set it still answers with networks for one of these.",
        "One seed; the intervals are over networks, test images and zoos being the same.",
    ],
    "unconditional": [
        "It makes more networks of the zoo that it was trained on, and is shown nothing.",
        "One seed; the intervals are over networks, test images and the zoo being the same.",
    ],
}


def text(run: Run, description: Mapping[str, Any], bits: int, shown: Shown | None) -> str:
    """The card.

    Args:
      description: of the meta-model. bits: of a stored number.
      shown: accuracies before and after storing, if there are any.
    """
    results = run.results
    title = f"A meta-model of {run.experiment}, {results['variant']}, seed {results['seed']}"
    parts = [
        f"# {title}",
        _trained_on(str(description.get("trained_on", "data that it does not name"))),
        f"```bash\n{run.command}\n```",
        f"{run.date}, {results['seconds']:.0f} s of work and at most "
        f"{results['peak_memory_gib']:.2f} GiB on {run.machine}.",
        _table(run),
        apart(run),
        f"{_stored(bits)} {_shown(shown)}".strip(),
        "## Limits",
        "\n".join(f"- {line}" for line in _LIMITS.get(run.experiment, [])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trained_on(words: str) -> str:
    return f"Trained on {words.removeprefix('Trained on ').rstrip('.')}."


def _table(run: Run) -> str:
    """Accuracies, a line a method and a column a set, of the first table."""
    rows = [row for row in run.results["rows"] if row["metric"] == "accuracy"]
    wanted = _ROWS.get(run.experiment, ())
    rows = [row for row in rows if row["method"] in wanted]
    rows = [row for row in rows if row["table"] == rows[0]["table"]]
    if not rows:
        return ""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    methods = [name for name in wanted if any(row["method"] == name for row in rows)]
    titles = run.results.get("titles") or {}
    heads = [str(titles.get(name, name.replace("_", " "))) for name in sets]
    lines = [f"| accuracy % | {' | '.join(heads)} |", "|---" * (len(sets) + 1) + "|"]
    cells = {(row["method"], row["set"]): _cell(row) for row in rows}
    for name in methods:
        found = " | ".join(cells.get((name, of), "") for of in sets)
        lines.append(f"| `{name}` | {found} |")
    over = sorted({str(row["over"]) for row in rows})
    count = sorted({row["n"] for row in rows if row["method"] == methods[0]})
    lines += ["", f"{rows[0]['table']}; mean ± 95 % interval over {count[-1]} {' or '.join(over)}."]
    return "\n".join(lines)


def apart(run: Run) -> str:
    """How diverse whole networks are and how many are copies, over the sets; "" of heads."""
    method = _ROWS.get(run.experiment, ("",))[0]
    rows = [row for row in run.results["rows"] if row["method"] == method]
    rows = [row for row in rows if row["table"] == rows[0]["table"]]
    told = []
    for metric, words in _APART:
        if values := [row["value"] for row in rows if row["metric"] == metric]:
            low, high = f"{min(values):.2f}", f"{max(values):.2f}"
            told.append(f"{words} {low}" + f" to {high}" * (low != high))
    if not told:
        return ""
    copies = [row for row in rows if row["metric"] == "copies"]
    found = f"; {sum(row['value'] for row in copies):.0f} copies of {sum(r['n'] for r in copies)}"
    return f"`{method}` where the zoo's networks have 1: {', '.join(told)}{found * bool(copies)}."


def _cell(row: Mapping[str, Any]) -> str:
    half = "" if row["ci95"] is None else f" ± {100 * row['ci95']:.1f}"
    return f"{100 * row['value']:.1f}{half}"


def _stored(bits: int) -> str:
    kept = (
        f"`python -m experiments.export_model WORKDIR --to=FOLDER --bits={bits}` has stored it: "
        "what generating needs, without the encoder of weights"
    )
    if bits == 32:
        return f"{kept}, as it was trained."
    how = (
        "half-precision numbers" if bits == 16 else "whole numbers of 8 bits with a scale a column"
    )
    return f"{kept}; matrices are {how}."


def _shown(shown: Shown | None) -> str:
    if shown is None:
        return ""
    return (
        f"Shown {SHOTS} training images of each of {shown.classes} handwritten digits "
        f"(scikit-learn's, brought to 28 pixels), the average of {SAMPLES} networks is right about "
        f"{100 * shown.stored:.1f} % of {shown.images} test images, and the run's own "
        f"meta-model, which is not cut in bits, about {100 * shown.run:.1f} %."
    )
