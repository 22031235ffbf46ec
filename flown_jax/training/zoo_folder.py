"""A run's zoo on the disk: written once and whole, or its part of one that several runs write.

Another recipe's zoo is refused.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
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
        _same(folder, recipe, "choose a new --workdir")
        return folder
    making = folder.with_name(f"{folder.name}.making")
    with writing(folder):
        shutil.rmtree(making, ignore_errors=True)
        zoo.create(making, spec, recipe=recipe, **facts)
        for part in parts:
            zoo.add(making, *part)
        making.rename(folder)
    return folder


def add_to(
    folder: pathlib.Path,
    spec: WeightSpec,
    parts: Iterable[tuple[Any, ...]],
    *,
    recipe: Mapping[str, Any],
    **facts: Any,
) -> pathlib.Path:
    """The folder of a zoo that several runs write, with these networks in it.

    What a run adds is in the zoo wholly or not at all, and in it once however often it is added;
    what others have added stays.

    Args:
      folder, spec, parts, recipe, facts: as of `write_once`.
    Raises:
      UserError: a zoo of another recipe is there, or the disk refuses.
    """
    with writing(folder):
        if not zoo.exists(folder):
            # The folder comes with its manifest: another run may be making it at this moment.
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = pathlib.Path(tempfile.mkdtemp(prefix=".zoo.", dir=folder.parent))
            try:
                zoo.create(scratch / "zoo", spec, recipe=recipe, **facts)
                with contextlib.suppress(OSError):
                    os.rename(scratch / "zoo", folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        _same(folder, recipe, "choose a new --store")
        for part in parts:
            zoo.add(folder, *part, spec=spec)
    return folder


def _same(folder: pathlib.Path, recipe: Mapping[str, Any], advice: str) -> None:
    there = zoo_files.read_manifest(folder).recipe
    if (found := difference(there, plain_values(recipe))) is not None:
        raise UserError(f"the zoo in {folder} was written with {found}: {advice}")
