"""Types of arguments that several commands take, with sentences for what they are not."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError

_MOST_EPOCHS = 1_000_000


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def number(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def epochs(text: str) -> list[int]:
    """The numbers of "46-50" or "0,10,46-50"."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is no range of epochs, such as 46-50")
        start, stop = int(first), int(last or first) + 1
        if stop - start > _MOST_EPOCHS:
            raise argparse.ArgumentTypeError(f"{text!r} has more than {_MOST_EPOCHS:,} epochs")
        numbers += range(start, stop)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} has no epochs in it, where 46-50 has five")
    return numbers


def mapping(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"name": 1}}')
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def inputs(text: str) -> dict[str, Any]:
    """A preprocessing as a JSON object, every field of it."""
    try:
        return Preprocessing.from_dict(mapping(text)).to_dict()
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
