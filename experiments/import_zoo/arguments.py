"""What the import can be told."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from experiments.command import Parser
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError

_MOST_EPOCHS = 1_000_000


def parser(doc: str, formats: Sequence[str]) -> argparse.ArgumentParser:
    """The command line.

    Args:
      doc: what the command does; shown by --help. formats: that it reads.
    """
    parser = Parser("experiments.import_zoo", doc)
    add = parser.add_argument
    add("format", choices=list(formats), metavar="FORMAT", help=" | ".join(formats))
    add("--from", dest="source", metavar="FOLDER", required=True, help="what is imported")
    add("--to", dest="target", metavar="ZOO", required=True, help="folder of the new zoo")
    add("--epochs", type=_epochs, metavar="46-50", help="epochs (of pdiff: states); also 0,50")
    add("--nets", type=_positive, metavar="N", help="at most so many nets, drawn with the seed")
    add("--per-net", type=_positive, metavar="N", help="at most so many epochs of a net, drawn")
    add("--held-out", type=_number, metavar="SHARE", help="share of nets held out: 0.2 (pdiff: 0)")
    add("--seed", type=_seed, metavar="N", help="seed of all drawing: 0")
    add("--model", metavar="NAME", help="the network, where the shapes do not tell it")
    add("--sizes", type=_mapping, metavar="JSON", help='its sizes, as {"activation": "tanh"}')
    add("--activation", metavar="NAME", help="model_zoo: take only nets with this one")
    add("--base", metavar="FILE", help="pdiff: the whole network's state dict")
    add("--dataset", metavar="NAME", help="the image set, where the folder's name does not tell")
    add("--inputs", type=_inputs, metavar="JSON", help="size, channels, mean, std of the images")
    add("--key", metavar="NAME", help="state_dicts: of one of several in a file")
    add("--weight-threshold", type=_number, metavar="X", help="skip models with larger weights")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def _epochs(text: str) -> list[int]:
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


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"name": 1}}')
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _inputs(text: str) -> dict[str, Any]:
    try:
        return Preprocessing.from_dict(_mapping(text)).to_dict()
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
