"""What a zoo's table says about a network: the fields a row must have, and which one it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flown_jax.errors import UserError
from flown_jax.weights.spec import canonical

SPLITS = ("train", "held_out")
# The fields of a row that say which network it is, as far as they are there.
IDENTITY = ("trial", "file", "seed", "epoch", "iteration")
# Fields of the manifest's own.
PLACE = ("shard", "row")


def checked_row(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The row as JSON holds it, with every field that a zoo needs.

    Raises:
      UserError: a value is no JSON, a field is missing, or one has a value that it cannot have;
        row `index` or its network is named.
    """
    where = f"row {index} of the zoo's table"
    values = json.loads(canonical(row, where))
    if reserved := [key for key in PLACE if key in values]:
        raise UserError(f"{where} has the reserved field {reserved[0]!r}")
    for key in ("seed", "epoch", "split"):
        if key not in values:
            raise UserError(f"{where} has no field {key!r}")
    for key in ("seed", "epoch"):
        whole = isinstance(values[key], int) and not isinstance(values[key], bool)
        if not whole and not (key == "seed" and values[key] is None):
            raise UserError(f"{where} has {key} {values[key]!r}, not a whole number")
    if values["split"] not in SPLITS:
        raise UserError(
            f"the network of {named(values)} has split {values['split']!r}, not one of "
            f"{', '.join(SPLITS)}"
        )
    for key in [key for key in values if key.endswith("accuracy") and values[key] is not None]:
        if not isinstance(values[key], int | float) or not 0 <= values[key] <= 1:
            raise UserError(
                f"the network of {named(values)} has {key} {values[key]!r}, not a fraction of 0 "
                "to 1"
            )
    return values


def identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a network from all others of its zoo."""
    return tuple(json.dumps(row.get(key)) for key in IDENTITY)


def named(row: Mapping[str, Any]) -> str:
    """The network in words, such as "seed 3, epoch 50"."""
    known = [f"{key} {row[key]}" for key in IDENTITY if row.get(key) is not None]
    return ", ".join(known)
