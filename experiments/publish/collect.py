"""What a page is made from, out of the folders of finished runs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from experiments import runs, trial
from experiments.publish import quantities
from experiments.publish.commands import command_line
from flown_jax.errors import UserError
from flown_jax.evaluation import tables
from flown_jax.evaluation.report import REMARK, read_table

# Of some experiments a part stands on a page of its own: table -> page.
_PARTS = {"retrieval": {"initialise": "initialisation"}}
_PATH = re.compile(r"(?<![\w./-])/(?:[\w.+-]+/)+([\w.+-]*)")  # of the machine of a run
_FREE = ("seed", "networks.first_seed", "tensorboard", "share")


def pages(workdirs: Sequence[Path], name: str | None = None) -> dict[str, dict[str, Any]]:
    """Pages by name, each of the runs of one experiment and variant, in order of their seeds;
    `where` is the first one's folder.

    Args:
      workdirs: of finished runs. name: of the page, where they make one alone.
    Raises:
      UserError: a folder without results, a run that has not come to its end or was cut, runs that
        make no mean, or a name for several pages.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in workdirs:
        run = _load(path)
        groups.setdefault(_name(run), []).append(run)
    found: dict[str, dict[str, Any]] = {}
    for of, group in groups.items():
        group.sort(key=lambda run: run["seed"])
        runs.check_alike(group)
        names = dict.fromkeys(row["table"] for row in group[0]["rows"])
        parts = _PARTS.get(group[0]["experiment"], {})
        split = {table: parts.get(table, group[0]["experiment"]) for table in names}
        for part in dict.fromkeys(split.values()):
            chosen = [table for table in names if split[table] == part]
            title = of.replace(group[0]["experiment"], part, 1)
            found[title] = _page(group, part, chosen)
    if name is not None:
        if len(found) > 1:
            raise UserError(f"--name={name} is for one page, and these make {', '.join(found)}.")
        found = dict(zip([name], found.values(), strict=True))
    return found


def _load(path: Path) -> dict[str, Any]:
    if (path / "config.json").exists() and not (path / "results.json").exists():
        raise UserError(f"{path} is of a run that is not finished: its command goes on with it.")
    run = runs.load(path)
    if trial.remark(str(run["variant"])):
        raise UserError(f"{path} is of a run that was cut by --try_steps: it makes no page.")
    runs.check_alike([run])
    return run


def _name(run: Mapping[str, Any]) -> str:
    """Of the page: the experiment, the variant, and the zoo where a run is about one."""
    parts, config = [run["experiment"]], run["config"] or {}
    if run["variant"] not in ("", "default"):
        parts.append(run["variant"])
    # Zoos of a trajectory lie in a folder of this name below the run's.
    names = [name for name in PurePath(str(config.get("zoo") or "")).parts if name != "zoo"]
    if run["experiment"] == "novelty":
        names = [PurePath(str(config.get(name))).stem for name in ("zoo_a", "zoo_b")]
        parts += names
    elif names:
        parts.append(names[-1])
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-.")


def shown(row: Mapping[str, Any], heads: set[str]) -> bool:
    """Whether a page has use for a row: the run's own tables show its metric, or a page's do.

    Args:
      heads: of the columns of the run's tables; none where it has no tables.
    """
    if quantities.of_headline(row["metric"]):
        return row["method"] == quantities.HEADLINE
    known = not heads or tables.heading(row["metric"]) in heads
    return known or row["metric"].startswith(quantities.CAME_OUT)


def _page(group: Sequence[dict[str, Any]], part: str, names: Sequence[str]) -> dict[str, Any]:
    """The content of a page; rows are those of some tables."""
    first, texts = group[0], [_texts(Path(run["where"])) for run in group]
    methods = {row["method"] for run in group for row in run["rows"] if row["table"] in names}
    heads = texts[0]["heads"]
    words = {
        head: {method: text for method, text in of.items() if method in methods}
        for head, of in texts[0]["words"].items()
    }
    line, unlike = command_line(first)
    return {
        "where": first["where"],
        "experiment": first["experiment"],
        "part": part,
        "variant": first["variant"],
        "about": _name(first).removeprefix(first["experiment"]).removeprefix("-"),
        "config": _digest(first["config"]),
        "command": line,
        "unlike": unlike,
        "titles": first.get("titles") or {},
        "introduction": texts[0]["introduction"],
        "words": words,
        "runs": [
            {
                "seed": run["seed"],
                "date": _date(run),
                "seconds": run["seconds"],
                "peak_memory_gib": run["peak_memory_gib"],
                "environment": _environment(run.get("environment") or {}),
                "remarks": _remarks(run, text, texts),
                "rows": [row for row in run["rows"] if row["table"] in names and shown(row, heads)],
            }
            for run, text in zip(group, texts, strict=True)
        ],
    }


def _texts(workdir: Path) -> dict[str, Any]:
    """What results.md says in words: `introduction` and `remarks`, and `words`, the remarks of its
    tables: heading of the first column -> method -> remark; `heads` of their other columns."""
    found: dict[str, Any] = {"introduction": [], "remarks": [], "words": {}, "heads": set()}
    try:
        text = _PATH.sub(r"PATH/\1", (workdir / "results.md").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not every command writes one
        return found
    above, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    for paragraph in above.split("\n\n")[1:]:
        lines = paragraph.strip().splitlines()
        if lines and lines[0].startswith("- "):
            found["remarks"] += [line.removeprefix("- ") for line in lines]
        elif lines:
            found["introduction"].append(" ".join(lines))
    for section in sections:
        table = section.partition("\n\n")[2].strip()
        if not table.startswith("|"):
            continue
        head, body = read_table(table)
        found["heads"] |= set(head[1:])
        if head[-1] == REMARK:
            words = found["words"].setdefault(head[0], {})
            words.update({line[0]: line[-1] for line in body if line[-1]})
    return found


def _remarks(
    run: Mapping[str, Any], text: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]
) -> list[str]:
    own = text["remarks"] or list(run.get("remarks") or [])
    # What a run says otherwise in its introduction, such as what validation has chosen.
    other = [p for p in text["introduction"] if any(p not in of["introduction"] for of in texts)]
    return [*own, *(other if text is not texts[0] else [])]


def _date(run: Mapping[str, Any]) -> str:
    """The day on which the run ended, as the run tells it, or as its records or files do."""
    if date := (run.get("environment") or {}).get("date"):
        return str(date)
    where = Path(run["where"])
    try:
        lines = (where / "metrics.jsonl").read_text().splitlines()
        stamp = max(json.loads(line)["time"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError):
        stamp = (where / "results.json").stat().st_mtime
    return time.strftime("%Y-%m-%d", time.gmtime(stamp))


def _environment(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of a machine is told: versions, processors and devices."""
    names = ("flown_jax", "python", "packages", "processor", "cpu_available", "backend", "devices")
    kept = {name: found[name] for name in names if found.get(name)}
    system = str(found.get("platform", ""))
    machine = re.search(r"x86_64|aarch64|arm64|AMD64", system)
    return {
        **kept,
        "system": " ".join([system.split("-")[0], machine[0] if machine else ""]).strip(),
    }


def _digest(config: Any) -> str:
    """Of all fields but those that runs of one page may differ in."""
    fields = json.loads(json.dumps(config))
    for name in _FREE if isinstance(fields, dict) else ():
        *groups, last = name.split(".")
        part: Any = fields
        for group in groups:
            part = part.get(group) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part.pop(last, None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
