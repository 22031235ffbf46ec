"""The files of a zoo: its manifest, its shards, and the order in which they are written.

    ZOO/manifest.json               what there is: spec, recipe, a line for every network
    ZOO/weights-0001.safetensors    networks as rows; a shard is written once and never changed
    ZOO/base.safetensors            variables of the network around a part, if there are any
    ZOO/.lock                       held while the zoo is being written

A shard comes first and the manifest that names it second, each whole or not at all; a shard that
no manifest names is a leftover of a kill, does not exist for readers and is removed by the next
writer. Every file's SHA-256 stands in the manifest, the manifest's own in its last field.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import read_json, write_bytes, writing
from flown_jax.models import layout
from flown_jax.weights.spec import WeightSpec

# Raised when the meaning of the files changes: older zoos are then refused.
FORMAT = 1
KIND = "flown_jax zoo"
MANIFEST, BASE, LOCK = "manifest.json", "base.safetensors", ".lock"
_SHARD = re.compile(r"weights-(\d{4,})\.safetensors")
_OURS = re.compile(
    rf"\.?({_SHARD.pattern}|base\.safetensors|manifest\.json)((\.[\w-]+)?\.tmp)?|\.lock"
)
_FIELDS = {
    "format": int,
    "kind": str,
    "dataset": str,
    "recipe": dict,
    "spec": dict,
    "spec_fingerprint": str,
    "buffers_spec": dict | None,
    "base": dict | None,
    "shards": list,
    "models": list,
    "sha256": str,
}


@dataclass
class Manifest:
    """What manifest.json says.

    Attributes:
      spec, buffers_spec: of the rows of the shards; None without running statistics.
      dataset, recipe: what the networks were trained on, and how.
      base: {"file", "sha256"} of the variables around a part, or None.
      shards: {"file", "sha256", "rows"} each.
      models: the row of each network, with its "shard" and "row" in it.
    """

    spec: WeightSpec
    buffers_spec: WeightSpec | None
    dataset: str
    recipe: dict[str, Any]
    base: dict[str, Any] | None
    shards: list[dict[str, Any]]
    models: list[dict[str, Any]]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which nobody else writes to the zoo; waits for those who do.

    Raises:
      UserError: the folder cannot be written.
    """
    with writing(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a zoo.

    Raises:
      UserError: there is none, or it is damaged, altered or not one of ours; it names the file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"there is no zoo in {folder}: it has no {MANIFEST}")
    stored = read_json(path, "the zoo")
    if not isinstance(stored, dict) or stored.get("kind") != KIND:
        raise UserError(f"{path} is not the manifest of a flown_jax zoo")
    if stored.get("format") != FORMAT:
        raise UserError(f"{path} has format {stored.get('format')!r}, this version reads {FORMAT}")
    for field, kind in _FIELDS.items():
        if field not in stored or not isinstance(stored[field], kind):
            raise UserError(f"the zoo is damaged: {path} has no proper field {field!r}")
    mark = stored.pop("sha256")
    if mark != _digest(stored):
        raise UserError(f"the zoo is damaged: {path} has changed since it was written")
    try:
        spec = WeightSpec.from_json(stored["spec"])
        buffers = stored["buffers_spec"]
        buffers_spec = None if buffers is None else WeightSpec.from_json(buffers)
    except UserError as error:
        raise UserError(f"the zoo is damaged: {path}: {error}") from error
    if spec.fingerprint != stored["spec_fingerprint"]:
        raise UserError(f"the zoo is damaged: {path} has a spec of another fingerprint")
    return Manifest(
        spec,
        buffers_spec,
        stored["dataset"],
        stored["recipe"],
        stored["base"],
        stored["shards"],
        stored["models"],
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest: from now on the zoo is what this one says."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "dataset": manifest.dataset,
        "recipe": manifest.recipe,
        "spec_fingerprint": manifest.spec.fingerprint,
        "spec": manifest.spec.to_json(),
        "buffers_spec": None if manifest.buffers_spec is None else manifest.buffers_spec.to_json(),
        "base": manifest.base,
        "shards": manifest.shards,
        "models": manifest.models,
    }
    fields["sha256"] = _digest(fields)
    # A line for every shard and network: short, and readable in an editor.
    lines = []
    for key, value in fields.items():
        text = _dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join("    " + _dumps(part) for part in value) + "\n  ]"
        lines.append(f'  "{key}": {text}')
    data = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
    write_bytes(folder / MANIFEST, data)


def next_shard(manifest: Manifest) -> str:
    """The file name of the shard after the manifest's last one."""
    found = [_SHARD.fullmatch(shard["file"]) for shard in manifest.shards]
    return f"weights-{max([0, *(int(m.group(1)) for m in found if m)]) + 1:04d}.safetensors"


def write_shard(
    folder: Path, name: str, spec: WeightSpec, weights: np.ndarray, buffers: np.ndarray | None
) -> dict[str, Any]:
    """Write rows of networks as a file; its entry for the manifest."""
    tensors = {"weights": weights} | ({} if buffers is None else {"buffers": buffers})
    digest = _write_tensors(folder / name, tensors, {"spec_fingerprint": spec.fingerprint})
    return {"file": name, "sha256": digest, "rows": len(weights)}


def read_shard(
    folder: Path, shard: Mapping[str, Any], manifest: Manifest
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights (rows, D) and running statistics (rows, B) or None of a shard.

    Raises:
      UserError: the file is absent, has changed, or holds other networks; it is named.
    """
    if not isinstance(shard.get("file"), str) or not _SHARD.fullmatch(shard["file"]):
        raise UserError(
            f"the zoo is damaged: {folder / MANIFEST} names a shard {shard.get('file')!r}"
        )
    path = folder / shard["file"]
    tensors = _read_tensors(path, shard.get("sha256"))
    wanted = {"weights": (shard.get("rows"), manifest.spec.size)}
    if manifest.buffers_spec is not None:
        wanted["buffers"] = (shard.get("rows"), manifest.buffers_spec.size)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != wanted:
        raise UserError(f"the zoo is damaged: {path} holds {shapes}, not {wanted}")
    return tensors["weights"], tensors.get("buffers")


def write_base(folder: Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Write a network's variables as a file; its entry for the manifest."""
    tensors = {path: _host(leaf) for path, leaf in layout.leaves(variables)}
    return {"file": BASE, "sha256": _write_tensors(folder / BASE, tensors, {})}


def read_base(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that `write_base` wrote.

    Raises:
      UserError: the file is absent or has changed.
    """
    return layout.nested(_read_tensors(folder / BASE, entry.get("sha256")))


def clean(folder: Path, manifest: Manifest | None) -> None:
    """Remove what a killed writer left behind; call it with the lock held."""
    keep = {MANIFEST, LOCK, *(shard["file"] for shard in (manifest.shards if manifest else ()))}
    if manifest is not None and manifest.base is not None:
        keep.add(BASE)
    for path in folder.iterdir():
        if path.name not in keep and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def foreign(folder: Path) -> list[str]:
    """Names in the folder that are no files of a zoo."""
    return sorted(p.name for p in folder.iterdir() if not _OURS.fullmatch(p.name))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> str:
    from safetensors.numpy import save

    data = save(dict(tensors), metadata=dict(metadata))
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def _read_tensors(path: Path, digest: Any) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the zoo is damaged: cannot read {path}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"the zoo is damaged: {path} has changed since it was written")
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"the zoo is damaged: {path} is not a safetensors file") from error


def _host(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype == jnp.bfloat16:  # unknown to safetensors' NumPy reader; nothing is lost
        array = array.astype(np.float32)
    # The memory of a transposed view would be written as it lies; the reshape undoes what
    # ascontiguousarray does to a scalar.
    return np.ascontiguousarray(array).reshape(array.shape)
