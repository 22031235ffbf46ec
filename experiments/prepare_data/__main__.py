"""Converts the raw files of an image set into the form that experiments read.

    python -m experiments.prepare_data mnist --from=FOLDER [--to=data] [--overwrite]

NAME is mnist, fashion_mnist, kmnist, usps, svhn_cropped, cifar10, cifar100, stl10 or mini_imagenet.
FOLDER holds the files that the set's owners publish, packed or not; nothing is downloaded. The
result, --to/NAME/VERSION, is a folder of TensorFlow Datasets in array_record form; TensorFlow is
not needed. A set that is there is kept; --overwrite makes it anew.

MNIST, Fashion-MNIST and KMNIST have the same file names: each needs a folder of its own.
"""

from __future__ import annotations

import sys

from experiments import command
from flown_jax.data.image_sets import DATA_DIR
from flown_jax.data.prepare import prepare


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.prepare_data", __doc__)
    parser.add_argument("name", metavar="NAME", help="the image set")
    parser.add_argument("--from", dest="source", metavar="FOLDER", required=True, help="raw files")
    parser.add_argument("--to", default=DATA_DIR, metavar="FOLDER", help="folder of prepared sets")
    parser.add_argument("--overwrite", action="store_true", help="make a set anew")
    with command.one_sentence():
        arguments = parser.parse_args(sys.argv[1:])
        report = prepare(
            arguments.name, arguments.source, arguments.to, overwrite=arguments.overwrite
        )
        print("\n".join(report.lines()))


if __name__ == "__main__":
    main()
