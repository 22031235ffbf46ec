"""Writes a finished run's meta-model into a folder that is small enough to share, with a card.

    python -m experiments.export_model workdirs/fsl-default-seed0 --to=FOLDER [--bits=16]

The folder has what generating networks needs and nothing more: arrays.safetensors with its checksum
in meta_model.json, and card.md, which says what it was trained on, by which command, what it is
worth and where it ends. `MetaModel.restore(FOLDER)` reads it. What fewer bits change is measured on
the embedded handwritten digits, where the meta-model takes them, and stands on the card.
"""

from __future__ import annotations

from pathlib import Path

from experiments import command
from experiments.export_model.card import text
from experiments.export_model.digits import Shown, accuracies
from experiments.export_model.run import read
from flown_jax import MetaModel
from flown_jax.files import write_bytes, writing
from flown_jax.meta_model.compact import BITS
from flown_jax.pretrained import CARD


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.export_model", __doc__)
    parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="folder of a finished run")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="where to")
    parser.add_argument("--target", help="of a run with several meta-models, which one")
    parser.add_argument(
        "--bits", type=int, choices=BITS, default=32, help="of a stored number; 32 by default"
    )
    with command.one_sentence():
        given = parser.parse_args()
        model = MetaModel.restore(given.workdir, target=given.target)
        run = read(given.workdir)
        model.export(given.to, bits=given.bits)
        stored = MetaModel.load(given.to)
        shown = accuracies(model, stored)
        with writing(given.to):
            write_bytes(given.to / CARD, text(run, model.description, given.bits, shown).encode())
        print(_report(given.to, shown))


def _report(folder: Path, shown: Shown | None) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    lines = [f"wrote {folder}: {size:.2f} MB; what it is says {folder / CARD}"]
    if shown is not None:
        lines.append(
            f"handwritten digits: {shown.run:.3f} right by the run's meta-model, "
            f"{shown.stored:.3f} by the stored one"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
