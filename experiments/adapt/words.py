"""What the tables of adaptation say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.adapt.parts import ADJOINT, ALONE, REWEIGHTED
from experiments.zoo_measures import TABLE
from flown_jax.networks.adaptation import DECODER, PARTS, RESIDUAL, VELOCITY

Row = Mapping[str, Any]
STATIC = "static"
REMARKS = {
    STATIC: "not adapted",
    f"{STATIC}_by_number": "the same, classes in order of their numbers",
    "members": "the zoo's networks as they are",
    "refined": "each latent by itself behind the frozen decoder: the ceiling of `velocity`",
    VELOCITY: "the paper's: through the solver, cut before t'",
    RESIDUAL: "one vector behind the decoder",
    DECODER: "with a term that keeps its networks apart",
    ALONE: "the decoder without that term",
    ADJOINT: "the velocity, without a gradient through the solver",
    REWEIGHTED: "rounds of learning again what does well",
    "plain_generated": "fine-tuned, from generated networks",
    "plain_kaiming": "fine-tuned, from random starts",
    "plain_mean": "fine-tuned, from the mean of the zoo",
    "displaced": "new networks moved as fine-tuning moves the mean of generated ones",
}


def remarks(config: ConfigDict) -> dict[str, str]:
    """Method -> a few words."""
    found = dict(REMARKS)
    for count in config.rivals.spread:
        found[f"plain_generated_{count}"] = "the same, this many networks share its steps"
    for part in (RESIDUAL, DECODER):
        found[f"mean_with_deviations_of_{part}"] = f"`plain_mean`, members' deviations, as `{part}`"
    for count in config.rivals.few:
        found[f"head_alone_{count}_images"] = "last layer of generated networks"
    return found


def cells(rows: Sequence[Row], name: str) -> dict[str, dict[str, float]]:
    """Method -> metric -> value, of a target's table."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["table"] == TABLE and row["set"] == name:
            found.setdefault(row["method"], {})[row["metric"]] = row["value"]
    return found


def verdicts(name: str, rows: Sequence[Row]) -> list[str]:
    """What adaptation gives and what plain fine-tuning does better, of a target."""
    of = cells(rows, name)
    found = []
    for part in PARTS:
        if part in of:
            found.append(
                f"{name}: {part} has {_percent(of[part])} % where the generator as it is has "
                f"{_percent(of[STATIC])}, at diversity {of[part].get('diversity', 0):.2f} "
                f"(as it is {of[STATIC].get('diversity', 0):.2f})."
            )
    plain = {m: v["accuracy"] for m, v in of.items() if m.startswith("plain_")}
    whole = {m: v for m, v in plain.items() if m.count("_") == 1}
    if whole:
        best = max(whole, key=lambda m: whole[m])
        ours = max((p for p in PARTS if p in of), key=lambda p: of[p]["accuracy"])
        better = "above" if of[ours]["accuracy"] > whole[best] else "below"
        by = 100 * abs(of[ours]["accuracy"] - whole[best])
        found.append(
            f"{name}: {ours} is {by:.1f} points {better} {best}, the best of plain fine-tuning. "
            "What an adapted generator gives beyond that is new networks without any training."
        )
        votes = {m: of[m]["accuracy_vote"] for m in (*whole, ours) if "accuracy_vote" in of[m]}
        first = max(votes, key=lambda m: votes[m])
        found.append(f"{name}: the best vote is that of {first}, {100 * votes[first]:.1f} %.")
    return found


def _percent(of: Mapping[str, float]) -> str:
    return f"{100 * of['accuracy']:.1f}"
