"""A run's zoo on the disk: written once and whole; another's is refused."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from flown_jax.errors import UserError
from flown_jax.files import writing
from flown_jax.training.fingerprints import difference, plain_values
from flown_jax.weights import zoo, zoo_files
from flown_jax.weights.spec import WeightSpec


def write_once(
    folder: pathlib.Path,
    spec: WeightSpec,
    parts: Iterable[tuple[Any, ...]],
    *,
    recipe: Mapping[str, Any],
    **facts: Any,
) -> pathlib.Path:
    """The folder of a zoo; one that was written with the same recipe stays as it is.

    Args:
      folder: of the zoo.
      spec: of its vectors.
      parts: arguments of `zoo.add` behind the folder: vectors, rows, running statistics.
      recipe: of its manifest, JSON values: it tells everything that the zoo depends on, by the
        fingerprint of the stage behind it and whatever else decides about the rows.
      facts: other arguments of `zoo.create`.
    Raises:
      UserError: a zoo of another recipe is there, or the disk refuses.
    """
    if zoo.exists(folder):
        there = zoo_files.read_manifest(folder).recipe
        if (found := difference(there, plain_values(recipe))) is not None:
            raise UserError(f"the zoo in {folder} was written with {found}: choose a new --workdir")
        return folder
    making = folder.with_name(f"{folder.name}.making")
    with writing(folder):
        shutil.rmtree(making, ignore_errors=True)
        zoo.create(making, spec, recipe=recipe, **facts)
        for part in parts:
            zoo.add(making, *part)
        making.rename(folder)
    return folder
