"""Two sets of networks, in whatever form, as zoos of one network."""

from __future__ import annotations

import argparse
import inspect
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.torch_import.files import read_state_dict
from flown_jax.weights import zoo
from flown_jax.weights.importers import Imported, model_zoo, pdiff, state_dicts
from flown_jax.weights.spec import WeightSpec, canonical
from flown_jax.weights.zoo import Zoo

_IMPORTERS: dict[str, Callable[..., Imported]] = {
    "model_zoo": model_zoo.read,
    "pdiff": pdiff.read,
    "state_dicts": state_dicts.read,
}
SKIPPED = "skipped"  # in the recipe of what was imported: a sentence for each model left out


def both(given: argparse.Namespace) -> tuple[Zoo, Zoo]:
    """ZOO_A and ZOO_B; what one of them does not say of the network is taken from the other.

    Raises:
      UserError: one cannot be read, or they are of different networks (it is said in what).
    """
    paths = {"a": Path(given.zoo_a), "b": Path(given.zoo_b)}
    kinds = {which: getattr(given, f"format_{which}") or seen(paths[which]) for which in paths}
    # Zoos know their networks, folders a part, vectors nothing: the first tell the others.
    order = sorted(paths, key=lambda which: (kinds[which] != "zoo", kinds[which] == "vectors"))
    found: dict[str, Zoo] = {}
    for which in order:
        known = next(iter(found.values()), None)
        share = 0.0 if which == "b" or given.held_out is None else given.held_out
        found[which] = read(paths[which], kinds[which], given, known, share)
    return _alike(found["a"], found["b"])


def seen(path: Path) -> str:
    """The format of what lies there."""
    if path.is_file():
        return "vectors"
    if zoo.exists(path):
        return "zoo"
    if (path / "checkpoint").is_dir() or path.name == "checkpoint":
        return "pdiff"
    return "model_zoo" if any(path.glob("*/params.json")) else "state_dicts"


def read(
    path: Path, kind: str, given: argparse.Namespace, known: Zoo | None, held_out: float
) -> Zoo:
    """One set of networks.

    Args:
      kind: its format. given: the command line.
      known: the other set, if it was read: tells the network where nothing else does.
      held_out: share of a folder's networks that the generator did not learn from.
    Raises:
      UserError: it cannot be read, or is of another network.
    """
    if kind == "zoo":
        found = zoo.load(path)
        if not len(found):
            raise UserError(f"the zoo in {path} has no networks yet.")
        return found
    if kind == "vectors":
        return _vectors(path, known)
    importer = _IMPORTERS[kind]
    options = {
        "model": given.model or (known.spec.model if known else None),
        "sizes": given.sizes or (known.spec.sizes_dict if known else None),
        "inputs": given.inputs or (known.spec.inputs_dict or None if known else None),
        "activation": given.activation,
        "base": given.base,
        "key": given.key,
        "dataset": given.data,
        "held_out": held_out,
    }
    takes = inspect.signature(importer).parameters
    return _as_zoo(path, importer(path, **{k: v for k, v in options.items() if k in takes}))


def _as_zoo(path: Path, found: Imported) -> Zoo:
    columns = dict.fromkeys(key for row in found.rows for key in row)
    return Zoo(
        weights=found.weights,
        spec=found.spec,
        table={key: [row.get(key) for row in found.rows] for key in columns},
        dataset=found.dataset,
        recipe={**found.recipe, SKIPPED: found.skipped},
        buffers=found.buffers,
        buffers_spec=found.buffers_spec,
        base=found.base,
        path=path,
    )


def _vectors(path: Path, known: Zoo | None) -> Zoo:
    """A file with one matrix (N, D), whose columns mean what the other zoo's do."""
    if known is None:
        raise UserError(f"{path} holds vectors alone: the other zoo must tell the network.")
    if known.buffers is not None:
        raise UserError(
            f"{path} holds vectors alone, and the networks in {known.path} have running "
            "statistics of their own."
        )
    weights = _matrix(path)
    if weights.ndim != 2 or weights.shape[1] != known.spec.size or not len(weights):
        raise UserError(
            f"{path} has an array of shape {weights.shape}, where a row of {known.spec.size:,} "
            "values for each network is wanted."
        )
    if not np.issubdtype(weights.dtype, np.floating):
        raise UserError(f"{path} has {weights.dtype} values, where floating-point ones are wanted.")
    count = len(weights)
    table: dict[str, list[Any]] = {
        "seed": list(range(count)),
        "epoch": [0] * count,
        "split": ["train"] * count,
    }
    # Values out of float32's range are no weights: they are counted as not finite.
    with np.errstate(over="ignore"):
        weights = weights.astype(np.float32)
    return Zoo(weights, known.spec, table, known.dataset, {}, base=known.base, path=path)


def _matrix(path: Path) -> np.ndarray:
    if path.suffix not in (".npy", ".npz"):
        arrays: Any = read_state_dict(path)
    else:
        try:
            arrays = np.load(path, allow_pickle=False)
            arrays = dict(arrays) if path.suffix == ".npz" else {"": arrays}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no NumPy file of numbers: {error}.") from error
    if len(arrays) != 1:
        raise UserError(f"{path} has {len(arrays)} arrays, where one matrix is wanted.")
    return next(iter(arrays.values()))


def _alike(a: Zoo, b: Zoo) -> tuple[Zoo, Zoo]:
    """Both with one spec, and with what lies around a part."""
    inputs = a.spec.inputs_dict or b.spec.inputs_dict
    if not inputs:
        raise UserError("nothing tells how the networks' images are prepared: give --inputs.")
    a, b = (replace(each, spec=_prepared(each.spec, inputs)) for each in (a, b))
    if (difference := a.spec.difference(b.spec)) is not None:
        raise UserError(f"{b.path} is of other networks than {a.path}: {difference}.")
    if (a.buffers is None) != (b.buffers is None):
        has, lacks = (a, b) if b.buffers is None else (b, a)
        raise UserError(
            f"the networks in {has.path} have running statistics of their own, and those in "
            f"{lacks.path} have none."
        )
    base = a.base if a.base is not None else b.base
    if base is None and a.spec.partial:
        raise UserError(f"{a.path} has parts of a network: give --base, or a zoo with one.")
    if a.base is not None and b.base is not None and not _equal(a.base, b.base):
        raise UserError(f"{a.path} and {b.path} are parts of networks that differ around them.")
    return replace(a, base=base), replace(b, base=base)


def _prepared(spec: WeightSpec, inputs: dict[str, Any]) -> WeightSpec:
    return spec if spec.inputs_dict else replace(spec, inputs=canonical(inputs, "inputs"))


def _equal(one: Any, other: Any) -> bool:
    import jax

    leaves, others = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (one, other))
    return len(leaves) == len(others) and all(
        p == q and np.array_equal(x, y) for (p, x), (q, y) in zip(leaves, others, strict=True)
    )
