"""The rows of a page as a file beside it: read by people's diffs, and made into the page again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flown_jax.errors import UserError
from flown_jax.files import read_json

FORMAT = 1
_DIGITS = 6  # that a number keeps; a table shows three or four
_RUN = ("seed", "date", "seconds", "peak_memory_gib", "environment", "remarks", "rows")
_PAGE = (
    "experiment",
    "part",
    "variant",
    "about",
    "config",
    "command",
    "unlike",
    "titles",
    "introduction",
    "words",
    "runs",
)


def to_bytes(page: Mapping[str, Any]) -> bytes:
    """The file of a page: JSON, a line for each table, set and metric; the same for the same page.

    Cells are [value, half width, n, number of the unit, over what], as many of them as differ from
    those of the cell before; a run that lacks the row has null.

    Args:
      page: as `collect.pages` makes it.
    """
    about = {name: value for name, value in page.items() if name != "runs"}
    made = [{k: v for k, v in run.items() if k != "rows"} for run in page["runs"]]
    lines = [
        f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in {"format": FORMAT, **about, "runs": made}.items()
    ]
    units = list(dict.fromkeys(row["unit"] for run in page["runs"] for row in run["rows"]))
    lines.append(f'"units": {json.dumps([unit[:12] for unit in units])}')
    rows = ",\n".join(_line(key, cells) for key, cells in _cells(page, units).items())
    return ("{\n" + ",\n".join(lines) + ',\n"rows": [\n' + rows + "\n]\n}\n").encode()


def from_file(path: Path) -> dict[str, Any]:
    """The page of a file, as `collect.pages` makes it, with rounded numbers.

    Raises:
      UserError: the file is no page's, damaged, or of another version.
    """
    stored = read_json(path, "a stored page")
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise UserError(f"{path} holds no rows of a page in format {FORMAT}.")
    try:
        units = stored.pop("units")
        rows: list[list[dict[str, Any]]] = [[] for _ in stored["runs"]]
        for line in stored.pop("rows"):
            _read_line(line, units, rows)
        for run, own in zip(stored["runs"], rows, strict=True):
            run["rows"] = own
            _ = [run[name] for name in _RUN]
        _ = [stored[name] for name in _PAGE]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} holds no whole rows of a page.") from error
    del stored["format"]
    return stored


Key = tuple[str, str, str]
Cells = dict[str, list[list[Any] | None]]


def _cells(page: Mapping[str, Any], units: list[str]) -> dict[Key, Cells]:
    """(table, set, metric) -> method -> cell of each run, in the order of the first runs."""
    found: dict[Key, Cells] = {}
    count = len(page["runs"])
    for i, run in enumerate(page["runs"]):
        for row in run["rows"]:
            of = found.setdefault((row["table"], row["set"], row["metric"]), {})
            cells = of.setdefault(row["method"], [None] * count)
            unit = units.index(row["unit"])
            cells[i] = [_short(row["value"]), _short(row["ci95"]), row["n"], unit, row["over"]]
    return found


def _line(key: Key, cells: Cells) -> str:
    written: dict[str, list[list[Any] | None]] = {}
    last: list[Any] | None = None
    for method, of in cells.items():
        written[method] = []
        for cell in of:
            same = cell is not None and last is not None and cell[2:] == last[2:]
            written[method].append(cell[:2] if cell is not None and same else cell)
            last = cell or last
    return json.dumps([*key, written], ensure_ascii=False, separators=(",", ":"))


def _read_line(line: list[Any], units: list[str], rows: list[list[dict[str, Any]]]) -> None:
    table, name, metric, cells = line
    last: list[Any] = []
    for method, of in cells.items():
        for cell, own in zip(of, rows, strict=True):
            if cell is None:
                continue
            last = cell if len(cell) > 2 else [*cell, *last[2:]]
            value, half, n, unit, over = last
            row = {"table": table, "method": method, "set": name, "metric": metric}
            own.append(
                {**row, "value": value, "ci95": half, "n": n, "over": over} | {"unit": units[unit]}
            )


def _short(value: float | None) -> float | int | None:
    if value is None:
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 10**15 else short
