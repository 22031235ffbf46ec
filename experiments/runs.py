"""Finished runs: what they say, and whether they can be one mean."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flown_jax.errors import UserError
from flown_jax.evaluation.rows import OVER

Run = dict[str, Any]
_FIELDS = {"experiment", "variant", "seed", "seconds", "peak_memory_gib", "rows"}
_OF_ROWS = {"table", "method", "set", "metric", "value", "ci95", "n"}
# Fields of a config that runs of one mean may have other values of.
_FREE = {
    "seed": "what the mean is over",
    "networks.first_seed": "the seed of a zoo",
    "tensorboard": "what is written beside the results",
    "share": "where results lie",
}
_SHOWN = 5


def load(workdir: pathlib.Path) -> Run:
    """The results of a finished run, with its `config` and, as `where`, its folder.

    Raises:
      UserError: there are none, they are not a run's, or a row does not say what it is over.
    """
    file = workdir / "results.json"
    try:
        results = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} holds no results.json of a finished run.") from error
    if not isinstance(results, dict) or _FIELDS - set(results):
        needed = ", ".join(sorted(_FIELDS))
        raise UserError(f"{file} has no results of a run: needs {needed}.")
    if "config" not in results:
        results["config"] = _config(workdir)
    return {**results, "where": str(workdir)}


def _config(workdir: pathlib.Path) -> Any:
    try:
        return json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError):
        return None


def check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that make no mean.

    Raises:
      UserError: other experiments, variants or fields of the config than the seed, the same seed
        twice, or rows that do not say what they are over.
    """
    kinds = {(run["experiment"], run["variant"]) for run in runs}
    if len(kinds) > 1:
        raise UserError(f"the runs are of different kinds: {sorted(kinds)}.")
    if len({run["seed"] for run in runs}) < len(runs):
        raise UserError("two of the runs have the same seed.")
    if len(runs) > 1:
        _check_configs(runs)
    for run in runs:
        _check_rows(run)


def _check_configs(runs: Sequence[Run]) -> None:
    for run in runs:
        if not isinstance(run.get("config"), dict):
            raise UserError(
                f"{run['where']} has no config.json: whether its run differs from the others in "
                "more than the seed cannot be told."
            )
    flat = [dict(_leaves(run["config"])) for run in runs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    absent = object()
    other = [
        name
        for name in names
        if name not in _FREE and any(f.get(name, absent) != flat[0].get(name, absent) for f in flat)
    ]
    if other:
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise UserError(
            f"the runs differ in more than their seed: {', '.join(other[:_SHOWN])}{more}."
        )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and JSON text of every field."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def _check_rows(run: Run) -> None:
    seen = set()
    for row in run["rows"]:
        if not isinstance(row, dict) or _OF_ROWS - set(row):
            raise UserError(f"{run['where']}/results.json has a row without {sorted(_OF_ROWS)}.")
        if row.get("over") not in OVER or not isinstance(row.get("unit"), str) or not row["unit"]:
            raise UserError(
                f"{run['where']}/results.json does not say what its intervals are over (`over` and "
                "`unit` of its rows), as those of earlier versions do not: run it again."
            )
        key = tuple(row[name] for name in ("table", "method", "set", "metric"))
        if key in seen:
            raise UserError(f"{run['where']}/results.json has the row {' '.join(key)} twice.")
        seen.add(key)
        if not all(_number(row[name]) for name in ("value", "n")) or not (
            row["ci95"] is None or _number(row["ci95"])
        ):
            raise UserError(f"{run['where']}/results.json has no number in {' '.join(key)}.")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def other_versions(runs: Sequence[Run]) -> list[str]:
    """Sentences on the libraries that were not of one version in all runs."""
    known = []
    for run in runs:
        made = run.get("environment") or {}
        own = {"flown_jax": made.get("flown_jax"), **(made.get("packages") or {})}
        known.append({name: version or "an unknown version" for name, version in own.items()})
    found = []
    for name in dict.fromkeys(name for own in known for name in own):
        versions = dict.fromkeys(own.get(name, "an unknown version") for own in known)
        if len(versions) > 1:
            found.append(f"The runs were made with several versions of {name}: {_list(versions)}.")
    return found


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
