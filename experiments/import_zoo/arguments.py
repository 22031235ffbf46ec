"""What the import can be told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from experiments.arguments import epochs, inputs, mapping, number, positive, seed
from experiments.command import Parser


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
    add("--epochs", type=epochs, metavar="46-50", help="epochs (of pdiff: states); also 0,50")
    add("--nets", type=positive, metavar="N", help="at most so many nets, drawn with the seed")
    add("--per-net", type=positive, metavar="N", help="at most so many epochs of a net, drawn")
    add("--held-out", type=number, metavar="SHARE", help="share of nets held out: 0.2 (pdiff: 0)")
    add("--seed", type=seed, metavar="N", help="seed of all drawing: 0")
    add("--model", metavar="NAME", help="the network, where the shapes do not tell it")
    add("--sizes", type=mapping, metavar="JSON", help='its sizes, as {"activation": "tanh"}')
    add("--activation", metavar="NAME", help="model_zoo: take only nets with this one")
    add("--base", metavar="FILE", help="pdiff: the whole network's state dict")
    add("--dataset", metavar="NAME", help="the image set, where the folder's name does not tell")
    add("--inputs", type=inputs, metavar="JSON", help="size, channels, mean, std of the images")
    add("--key", metavar="NAME", help="state_dicts: of one of several in a file")
    add("--weight-threshold", type=number, metavar="X", help="skip models with larger weights")
    return parser
