"""What the audit can be told."""

from __future__ import annotations

import argparse

from experiments.arguments import inputs, mapping, number, positive, seed
from experiments.command import Parser

FORMATS = ("zoo", "vectors", "model_zoo", "pdiff", "state_dicts")


def parser(doc: str) -> argparse.ArgumentParser:
    """The command line; `doc`, what the command does, is shown by --help."""
    found = Parser("experiments.novelty", doc)
    add = found.add_argument
    add("zoo_a", metavar="ZOO_A", help="what the generator learned from")
    add("zoo_b", metavar="ZOO_B", help="what it made")
    add("--data", metavar="NAME", required=True, help="the image set on which networks are run")
    add("--data-dir", metavar="FOLDER", help="of prepared image sets: data")
    add("--split", default="test", metavar="NAME", help="of the image set: test")
    add("--images", type=positive, metavar="N", help="only the first N images")
    add("--matching-images", type=positive, default=200, metavar="N", help="to match units on: 200")
    add("--networks", type=positive, metavar="N", help="at most N networks a zoo, drawn")
    add("--seed", type=seed, default=0, metavar="N", help="seed of all drawing: 0")
    add("--workdir", metavar="FOLDER", help="of the results: workdirs/novelty-ZOO_A-ZOO_B")
    for which in ("a", "b"):
        what = f"of ZOO_{which.upper()}, where it is not seen: {', '.join(FORMATS)}"
        add(f"--format-{which}", choices=FORMATS, metavar="FORMAT", help=what)
    add("--held-out", type=number, metavar="SHARE", help="of nets in a folder ZOO_A: 0")
    add("--model", metavar="NAME", help="the network, where neither zoo nor shapes tell it")
    add("--sizes", type=mapping, metavar="JSON", help='its sizes, as {"activation": "tanh"}')
    add("--inputs", type=inputs, metavar="JSON", help="size, channels, mean, std of the images")
    add("--activation", metavar="NAME", help="model_zoo: only nets with this one")
    add("--base", metavar="FILE", help="pdiff: the whole network's state dict")
    add("--key", metavar="NAME", help="state_dicts: of one of several in a file")
    return found
