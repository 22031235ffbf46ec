"""Turns trained weights of others into a zoo of this library.

    python -m experiments.import_zoo model_zoo --from=tune_zoo_mnist_uniform --to=zoos/mnist \\
        --epochs=46-50 --nets=100 --per-net=1

Formats: `model_zoo`, the unpacked raw zip of a zoo of Schuerholt et al. (a folder of trials);
`pdiff`, a trajectory of Neural Network Diffusion (a folder checkpoint/ of .pth files);
`state_dicts`, a folder of safetensors or PyTorch state dicts of one network. PyTorch is not
needed, and nothing of the files is run.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.command import Parser, one_sentence
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.files import writing
from flown_jax.weights import zoo
from flown_jax.weights.importers import Imported, model_zoo, pdiff, state_dicts

_FORMATS = {"model_zoo": model_zoo, "pdiff": pdiff, "state_dicts": state_dicts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Import as the command line says; a user's mistake is one sentence and exit status 2."""
    with one_sentence():
        given = {k: v for k, v in vars(_parser().parse_args(arguments)).items() if v is not None}
        kind, source, target = given.pop("format"), given.pop("source"), Path(given.pop("target"))
        read = _FORMATS[kind].read
        allowed = inspect.signature(read).parameters
        for name in given:
            if name not in allowed:
                raise UserError(f"{kind} takes no --{name.replace('_', '-')}; see --help")
        if target.exists():
            raise UserError(f"there is something at {target} already; give --to another name")
        found = read(source, **given)
        if not found.dataset:
            raise UserError(f"nothing tells which image set {source} is for; give --dataset")
        if found.spec.partial and found.base is None:
            raise UserError(
                f"{source} has parts of a network; give --base, a file of the whole state dict"
            )
        write(target, found)
        print(report(target, found))


def write(target: Path, found: Imported) -> None:
    """Write a new zoo, whole or not at all.

    Raises:
      UserError: two models cannot be told apart, or the disk refuses.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            zoo.create(
                scratch / "zoo",
                found.spec,
                dataset=found.dataset,
                recipe=found.recipe,
                base=found.base,
                buffers_spec=found.buffers_spec,
            )
            zoo.add(scratch / "zoo", found.weights, found.rows, found.buffers)
            os.rename(scratch / "zoo", target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def report(target: Path, found: Imported) -> str:
    """What was found, written and skipped."""
    splits = [row["split"] for row in found.rows]
    counts = f"{splits.count('train')} to train on and {splits.count('held_out')} held out"
    accuracies = [row["test_accuracy"] for row in found.rows if row["test_accuracy"] is not None]
    lines = [
        f"found: {len(found.rows)} models of {found.spec.model} with {found.spec.size:,} weights, "
        f"for {found.dataset}",
        f"wrote: {target}, {counts}",
    ]
    if accuracies:
        lines.append(
            f"test accuracy: mean {np.mean(accuracies):.4f}, from {min(accuracies):.4f} to "
            f"{max(accuracies):.4f}"
        )
    if not found.spec.inputs_dict:
        lines.append("the preprocessing of the images is not recorded: --inputs was not given")
    lines.append(f"skipped: {len(found.skipped)}")
    return "\n".join([*lines, *(f"  {sentence}" for sentence in found.skipped)])


def _parser() -> argparse.ArgumentParser:
    parser = Parser("experiments.import_zoo", __doc__)
    add = parser.add_argument
    add("format", choices=list(_FORMATS), metavar="FORMAT", help=" | ".join(_FORMATS))
    add("--from", dest="source", metavar="FOLDER", required=True, help="what is imported")
    add("--to", dest="target", metavar="ZOO", required=True, help="folder of the new zoo")
    add("--epochs", type=_epochs, metavar="46-50", help="epochs (of pdiff: states); also 0,50")
    add("--nets", type=_positive, metavar="N", help="at most so many nets, drawn with the seed")
    add("--per-net", type=_positive, metavar="N", help="at most so many epochs of a net, drawn")
    add("--held-out", type=float, metavar="SHARE", help="share of nets held out: 0.2 (pdiff: 0)")
    add("--seed", type=int, metavar="N", help="seed of all drawing: 0")
    add("--model", metavar="NAME", help="the network, where the shapes do not tell it")
    add("--sizes", type=_mapping, metavar="JSON", help='its sizes, as {"activation": "tanh"}')
    add("--activation", metavar="NAME", help="model_zoo: take only nets with this one")
    add("--base", metavar="FILE", help="pdiff: the whole network's state dict")
    add("--dataset", metavar="NAME", help="the image set, where the folder's name does not tell")
    add("--inputs", type=_inputs, metavar="JSON", help="size, channels, mean, std of the images")
    add("--weight-threshold", type=float, metavar="X", help="skip models with larger weights")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _epochs(text: str) -> list[int]:
    """The numbers of "46-50" or "0,10,46-50"."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is no range of epochs, such as 46-50")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} has no epochs in it, where 46-50 has five")
    return numbers


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"name": 1}}')
    return value


def _inputs(text: str) -> dict[str, Any]:
    try:
        return Preprocessing.from_dict(_mapping(text)).to_dict()
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()
