"""Zoos that a config names by a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flown_jax.errors import UserError
from flown_jax.weights import zoo
from flown_jax.weights.zoo import Zoo

_ROOT = "zoos"  # of the repository; an installed package has none


def load(folder: str | Path, epochs: Iterable[int] | None = None) -> Zoo:
    """The zoo in a folder, as `weights.zoo.load` reads it.

    Raises:
      UserError: there is none, which of a zoo of the repository is told apart, or it is damaged.
    """
    path = Path(folder)
    if path.parts[:1] == (_ROOT,) and not Path(_ROOT).is_dir():
        raise UserError(
            f"there is no zoo in {folder}: the small zoos lie in the folder {_ROOT}/ of the "
            "repository, where the command is to be called, and no installed package has them."
        )
    return zoo.load(path, epochs=epochs)
