"""Where a meta-model lies on the disk: in a finished run's folder, or in one to share."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flown_jax.errors import UserError
from flown_jax.files import alone_in, read_json, sha256_of, write_json, writing
from flown_jax.meta_model import compact
from flown_jax.training.stages import FORMAT as RUN_FORMAT
from flown_jax.training.trees import load_tree, save_tree

ARRAYS, DESCRIPTION = "arrays.safetensors", "meta_model.json"
KIND, FORMAT = "flown_jax meta-model", 4


def of_run(workdir: str | Path, target: str | None = None) -> tuple[Any, Any]:
    """Description and arrays of a finished run's meta-model.

    Args:
      target: of a run with several targets, which one.
    Raises:
      UserError: the run is not finished or of another version, or its files are damaged.
    """
    name = "model" if target is None else f"model-{target}"
    folder = Path(workdir) / "stages" / name
    if not os.path.exists(folder / "stage.json"):
        found = glob.glob(f"{glob.escape(str(workdir))}/stages/model-*/stage.json")
        if several := sorted(Path(p).parent.name.removeprefix("model-") for p in found):
            raise UserError(
                f"{workdir} holds the meta-models of {', '.join(several)}: name one as target."
            )
        raise UserError(
            f"{workdir} holds no finished meta-model: run its experiment with "
            f"--workdir={workdir} to its end first."
        )
    record = read_json(folder / "stage.json", str(workdir))
    if not isinstance(record, dict) or record.get("format") != RUN_FORMAT:
        raise UserError(
            f"{workdir} was made by another version of flown_jax: run its experiment again, in "
            "a new --workdir."
        )
    values = _checked(folder / "outputs.safetensors", record)
    return values.get("description"), values.get("arrays")


def is_own(folder: str | Path) -> bool:
    """Whether `write` has made a folder."""
    return os.path.exists(Path(folder) / DESCRIPTION)


def read(folder: str | Path) -> tuple[Any, Any]:
    """Description and arrays that `write` stored.

    Raises:
      UserError: nothing of ours is there, it is damaged, has changed or is of another format.
    """
    path = Path(folder) / DESCRIPTION
    if not is_own(folder):
        raise UserError(f"{folder} holds no exported meta-model: {DESCRIPTION} is missing.")
    with writing(path), alone_in(Path(folder), reading=True):
        stored = read_json(path, f"the meta-model in {folder}")
        if not isinstance(stored, dict) or stored.get("kind") != KIND:
            raise UserError(f"{path} is not the description of a {KIND}.")
        if stored.get("format") != FORMAT:
            raise UserError(
                f"{path} has format {stored.get('format')}; this version reads {FORMAT}: "
                "restore the run that it was made of and export it again."
            )
        if stored.get("checksum") != checksum(stored):
            raise UserError(f"{path} has changed since it was written.")
        arrays = _checked(Path(folder) / ARRAYS, stored)
    return stored.get("description"), compact.unpack(arrays)


def write(
    folder: str | Path,
    description: Mapping[str, Any],
    arrays: Mapping[str, Any],
    bits: int | None = None,
) -> Path:
    """Store a meta-model in a folder, which is made.

    Args:
      bits: as `compact.pack`; None for all arrays as they are.
    Raises:
      UserError: another number of bits, no folder can be made there, or the disk refuses.
    """
    folder = Path(folder)
    if bits is not None:
        arrays = compact.pack(arrays, bits)
    about = {"kind": KIND, "format": FORMAT, "description": description}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            save_tree(folder / ARRAYS, arrays)
            record = {**about, "sha256": sha256_of(folder / ARRAYS)}
            write_json(folder / DESCRIPTION, {**record, "checksum": checksum(record)})
    return folder


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of all fields of a record but its own."""
    fields = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _checked(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a file whose checksum stands in its record."""
    try:
        fits = sha256_of(path) == record.get("sha256")
    except OSError:
        fits = False
    if not fits:
        raise UserError(f"{path} is missing or has changed since it was written.")
    return load_tree(path)
