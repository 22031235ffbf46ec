"""The text of a page and of the list of pages, in Markdown."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import runs
from experiments.publish import quantities
from experiments.publish.commands import seed_flag
from experiments.publish.layout import Footnotes, groups, quantity_tables, short_titles
from flown_jax.evaluation import tables
from flown_jax.evaluation.report import CHOSEN

_SHOWN = 5  # fields of a config
MADE = "<!-- Made by `python -m experiments.publish`; what is written here by hand is lost. -->"


def text(
    name: str,
    page: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    figures: Mapping[str, str],
) -> str:
    """A page: what was run, figures, a table a quantity, remarks, and how it was made.

    Args:
      name: of the page. page: as `stored.from_file` gives it.
      rows: means over its runs. figures: file name -> caption.
    """
    notes = Footnotes()
    parts = [MADE, f"# {title(page)}", *page["introduction"], _sets(page, rows), _counts(page)]
    for file, caption in figures.items():
        alt = caption.replace("`", "").replace("_", " ")
        parts += [f"![{alt}](figures/{name}/{file})", f"*{caption}*"]
    for heading, names in groups(page, rows).items():
        parts += [f"## {heading}" if heading else "## Tables"]
        parts += quantity_tables(page, rows, names, notes)
    if any(tables.chosen_on_test(row["method"], row["metric"]) for row in rows):
        parts.append(CHOSEN)
    parts += _of_runs(page)
    parts += notes.section()
    parts += _made(page)
    return "\n\n".join(part for part in parts if part) + "\n"


def title(page: Mapping[str, Any]) -> str:
    """Heading of a page: the experiment, and what it is of."""
    words = quantities.TITLES.get(page["part"], page["part"].replace("_", " "))
    return f"{words} (`{page['about']}`)" if page["about"] else words


def index(pages: Mapping[str, Mapping[str, Any]]) -> str:
    """The list of all pages."""
    lines = ["| page | seeds | run on | seconds a seed |", "|---|---|---|---:|"]
    for name, page in pages.items():
        seconds = sum(run["seconds"] for run in page["runs"]) / len(page["runs"])
        seeds = ", ".join(str(run["seed"]) for run in page["runs"])
        lines.append(f"| [{title(page)}]({name}.md) | {seeds} | {_dates(page)} | {seconds:,.0f} |")
    about = (
        "Each page is made from the results of finished runs, and from nothing else; its rows lie "
        "in `data/`. Below each page stand command, seeds, day, machine and versions."
    )
    return "\n\n".join([MADE, "# Results", about, "\n".join(lines)]) + "\n"


def _sets(page: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What the short names of sets are short for."""
    brief = short_titles(page, (row["set"] for row in rows))
    longer = [
        page["titles"][name]
        for name, text in brief.items()
        if page["titles"].get(name, text) != text
    ]
    return f"Sets: {'; '.join(longer)}." if longer else ""


def _counts(page: Mapping[str, Any]) -> str:
    own = page["runs"]
    if len(own) == 1:
        return f"One run, of seed {own[0]['seed']}: what another seed changes is in no interval."
    return (
        f"Means over {len(own)} runs with seeds {', '.join(str(run['seed']) for run in own)}. The "
        "interval behind ± is the one within runs; it is narrowed by more runs only where each "
        "drew tasks of its own. The one in brackets is Student's over the seeds. Where there are "
        "both, both count."
    )


def _of_runs(page: Mapping[str, Any]) -> list[str]:
    """Sentences of the runs; those that all say stand once."""
    said = [run["remarks"] for run in page["runs"]]
    common = [text for text in said[0] if all(text in own for own in said)]
    lines = [f"- {text}" for text in common]
    for run, own in zip(page["runs"], said, strict=True):
        lines += [f"- Seed {run['seed']}: {text}" for text in own if text not in common]
    return ["## What the runs say", "\n".join(lines)] if lines else []


def _made(page: Mapping[str, Any]) -> list[str]:
    own = page["runs"]
    seeds = [str(run["seed"]) for run in own]
    flag = seed_flag(page["experiment"])
    command = f"{page['command']} {flag}={seeds[0] if len(own) == 1 else 'S'}"
    lines = [] if len(own) == 1 else [f"S = {', '.join(seeds)}."]
    if page["unlike"]:
        more = f" and {len(page['unlike']) - _SHOWN} more" * (len(page["unlike"]) > _SHOWN)
        some = ", ".join(f"`{name}`" for name in page["unlike"][:_SHOWN])
        lines.append(f"The variant's fields have changed since: {some}{more}.")
    lines += [
        f"The runs ended on {_dates(page)}." if len(own) > 1 else f"It ended on {_dates(page)}."
    ]
    for machine, of in _machines(page).items():
        lines.append(f"{machine}." if len(of) == len(own) else f"Seed {', '.join(of)}: {machine}.")
    lines += runs.other_versions(own)
    table = ["| seed | day | seconds | GiB at most |", "|---|---|---:|---:|"]
    for run in own:
        cost = f"{run['seconds']:,.0f} | {run['peak_memory_gib']:.2f}"
        table.append(f"| {run['seed']} | {run['date']} | {cost} |")
    clock = "Seconds are the clock's: other work on the machine is in them, compilation too."
    making = [f"```bash\n{command}\n```", " ".join(lines), "\n".join(table), clock]
    return ["## How it was made", *making]


def _machines(page: Mapping[str, Any]) -> dict[str, list[str]]:
    """Machine and versions in words -> seeds of the runs there."""
    found: dict[str, list[str]] = {}
    for run in page["runs"]:
        of = run["environment"]
        devices = of.get("devices") or []
        if of.get("backend", "cpu") == "cpu":
            place = f"{of.get('cpu_available', '?')} cores"
            place += f" of {of['processor']}" if of.get("processor") else ""
        else:
            place = f"{len(devices)} x {devices[0]}" if devices else of["backend"]
        versions = {"flown_jax": of.get("flown_jax"), "Python": of.get("python")}
        versions |= of.get("packages") or {}
        known = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        words = ", ".join(part for part in (place, of.get("system"), known) if part)
        found.setdefault(words, []).append(str(run["seed"]))
    return found


def _dates(page: Mapping[str, Any]) -> str:
    days = sorted({run["date"] for run in page["runs"]})
    first, last = (datetime.date.fromisoformat(day) for day in (days[0], days[-1]))
    if first == last:
        return f"{first.day} {first:%B %Y}"
    return f"{first.day} {first:%B %Y} to {last.day} {last:%B %Y}"
