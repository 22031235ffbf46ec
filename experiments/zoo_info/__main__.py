"""Describes a zoo: tables on the screen and a picture beside it.

    python -m experiments.zoo_info PATH [--output=FOLDER]

What the networks are and how they were trained, their accuracies by epoch and split, the values of
each tensor, and how far the networks are from each other. The picture is written as NAME-info.png
beside the zoo's folder NAME, or into FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments import command
from flown_jax.errors import UserError
from flown_jax.evaluation import zoo_figures, zoo_tables
from flown_jax.files import writing
from flown_jax.weights import zoo
from flown_jax.weights.zoo import Zoo


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.zoo_info", __doc__)
    parser.add_argument("path", metavar="PATH", help="the zoo's folder")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the picture")
    with command.one_sentence():
        arguments = parser.parse_args(sys.argv[1:])
        found = zoo.load(arguments.path)
        if not len(found):
            raise UserError(f"the zoo in {arguments.path} has no networks yet.")
        name, beside = Path(arguments.path).resolve().name, Path(arguments.path).resolve().parent
        picture = _made(Path(arguments.output or beside)) / f"{name}-info.png"
        zoo_tables.show(found)
        zoo_figures.overview(picture, found, title=_title(found, name))
        print(f"wrote {picture}")


def _made(folder: Path) -> Path:
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise UserError(f"the folder {folder} cannot be made.") from error
    return folder


def _title(found: Zoo, name: str) -> str:
    activation = found.spec.sizes_dict.get("activation")
    network = f"{found.spec.model or 'network'}{f' ({activation})' if activation else ''}"
    of = f" on {found.dataset}" if found.dataset else ""
    return f"{name}: {len(found):,} networks, {network}{of}, {found.spec.size:,} weights each"


if __name__ == "__main__":
    main()
