"""Turns trained weights of others into a zoo of this library.

    python -m experiments.import_zoo model_zoo --from=tune_zoo_mnist_uniform --to=zoos/mnist \\
        --epochs=46-50 --nets=100 --per-net=1

Formats: `model_zoo`, the unpacked raw zip of a zoo of Schuerholt et al. (a folder of trials);
`pdiff`, a trajectory of Neural Network Diffusion (a folder checkpoint/ of .pth files);
`state_dicts`, a folder of safetensors or PyTorch state dicts of one network. PyTorch is not
needed, and nothing of the files is run.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from pathlib import Path

from experiments.command import one_sentence
from experiments.import_zoo.arguments import parser
from experiments.import_zoo.writing import report, write
from flown_jax.errors import UserError
from flown_jax.weights.importers import model_zoo, pdiff, state_dicts

_FORMATS = {"model_zoo": model_zoo, "pdiff": pdiff, "state_dicts": state_dicts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Import as the command line says; a user's mistake is one sentence and exit status 2."""
    with one_sentence():
        parsed = parser(__doc__ or "", list(_FORMATS)).parse_args(arguments)
        given = {k: v for k, v in vars(parsed).items() if v is not None}
        kind, source, target = given.pop("format"), given.pop("source"), Path(given.pop("target"))
        read = _FORMATS[kind].read
        allowed = inspect.signature(read).parameters
        for name in given:
            if name not in allowed:
                raise UserError(f"{kind} takes no --{name.replace('_', '-')}; see --help")
        # Not by `exists`, which is silent about names that no file can have.
        with contextlib.suppress(FileNotFoundError):
            target.lstat()
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


if __name__ == "__main__":
    main()
