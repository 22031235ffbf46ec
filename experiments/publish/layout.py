"""Means over a page's runs as tables in Markdown: methods are lines, sets are columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.means import over_words
from experiments.publish import quantities
from flown_jax.evaluation import tables

Row = Mapping[str, Any]
_WIDE = 6  # columns of a table at most


class Footnotes:
    """Remarks in the order in which they are needed, each with its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """What stands behind a word that has the remark; "" for none."""
        if not text:
            return ""
        number = self._numbers.setdefault(text, len(self._numbers) + 1)
        return f"<sup>[{number}](#remarks)</sup>"

    def section(self) -> list[str]:
        """The list of all, with its heading."""
        if not self._numbers:
            return []
        return ["## Remarks", "\n".join(f"{i}. {text}" for text, i in self._numbers.items())]


def groups(page: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Heading -> tables of the rows that are shown together: a few-shot run's settings are."""
    names = list(dict.fromkeys(row["table"] for row in rows))
    if page["experiment"] != "fewshot" and len(names) > 1:
        return {_words(name).capitalize(): [name] for name in names}
    return {"": names}


def quantity_tables(
    page: Mapping[str, Any], rows: Sequence[Row], names: Sequence[str], notes: Footnotes
) -> list[str]:
    """A heading, tables and a line on their intervals for each quantity of some tables.

    Args:
      rows: means, of all tables. names: of the tables.
    """
    of = [row for row in rows if row["table"] in names]
    metrics = tables.columns({"": {row["metric"]: (0.0, None) for row in of}})
    one = _lines_of(page, names, notes)
    parts: list[str] = []
    if epochs := [m for m in metrics if m.startswith(quantities.EPOCH)]:
        parts += _by_epoch(page, of, epochs, one)
    differences = [m for m in metrics if quantities.of_headline(m)]
    came = [m for m in metrics if m.startswith(quantities.CAME_OUT)]
    for metric in metrics:
        if metric in differences[:1]:
            parts += _headline(page, of, names)
        if metric in (*epochs, *differences, *came):
            continue
        found = [row for row in of if row["metric"] == metric]
        chosen = " †" if tables.chosen_on_test("", metric) else ""
        parts.append(f"### {quantities.title(metric)}{chosen}")
        columns = {(r["table"], r["set"]): _column(page, r, names) for r in found}
        keys = list(columns)
        for i in range(0, len(keys), _WIDE):
            shown = {key: columns[key] for key in keys[i : i + _WIDE]}
            cells = {(r["method"], (r["table"], r["set"])): r for r in found}
            parts.append(_table(one, shown, cells))
        parts.append(_note(found, quantities.sentence(metric)))
    if came:
        parts += _came_out(page, of, came)
    return parts


def short_titles(page: Mapping[str, Any], sets: Iterable[str]) -> dict[str, str]:
    """Set -> its title, up to a colon where that tells it from the others."""
    whole = {name: page["titles"].get(name, _words(name)) for name in dict.fromkeys(sets)}
    brief = {name: text.partition(":")[0] for name, text in whole.items()}
    return brief if len(set(brief.values())) == len(brief) else whole


def remark(page: Mapping[str, Any], names: Sequence[str], method: str) -> str:
    """What the run's own tables say of a method, those of the same kind of line."""
    return page["words"].get(noun(page, names), {}).get(method, "")


def noun(page: Mapping[str, Any], names: Sequence[str]) -> str:
    """What a line of some tables is: a method, a start, a reader."""
    methods = {r["method"] for run in page["runs"] for r in run["rows"] if r["table"] in names}
    kinds = page["words"]
    return max(kinds, key=lambda kind: len(methods & set(kinds[kind])), default="method")


def cell(row: Row) -> str:
    """Value ± half width within runs, and in brackets that over the seeds; never in two lines."""
    of = None if row["runs"] > 1 else row["n"]
    text = tables.text_cell(row["metric"], (row["value"], row["ci95"]), of=of)
    if row["seeds"] is not None:
        text += f" ({tables.text_cell(row['metric'], (row['seeds'], None)).lstrip('+')})"
    return text.replace(" ", "\u00a0")


Lines = tuple[str, Callable[[str], str]]  # heading of the first column, and a method's cell


def _lines_of(page: Mapping[str, Any], names: Sequence[str], notes: Footnotes) -> Lines:
    def text(method: str) -> str:
        mark = notes.mark(remark(page, names, method))
        return f"`{method}`{' †' if tables.chosen_on_test(method) else ''}{mark}"

    return noun(page, names), text


def _table(one: Lines, columns: Mapping[Any, str], cells: Mapping[tuple[str, Any], Row]) -> str:
    """Cells by method and column; methods without any are left out."""
    head, text = one
    lines = [f"| {head} | {' | '.join(columns.values())} |", "|---" + "|---:" * len(columns) + "|"]
    for method in dict.fromkeys(method for method, _ in cells):
        found = [cells.get((method, key)) for key in columns]
        if any(found):
            texts = ["" if row is None else cell(row) for row in found]
            lines.append(f"| {text(method)} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _by_epoch(
    page: Mapping[str, Any], rows: Sequence[Row], metrics: Sequence[str], one: Lines
) -> list[str]:
    parts = ["### Accuracy by epochs of fine-tuning, %"]
    columns = {metric: tables.heading(metric) for metric in metrics}
    titles = short_titles(page, (row["set"] for row in rows))
    for name, title in titles.items():
        found = [row for row in rows if row["set"] == name and row["metric"] in metrics]
        if found:
            drawn = _table(one, columns, {(r["method"], r["metric"]): r for r in found})
            parts += [f"**{title}**", drawn, _note(found)]
    return parts


def _headline(page: Mapping[str, Any], rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Paired differences of the headline to all rivals, a rival a line."""
    own = [row for row in rows if row["method"] == quantities.HEADLINE]
    found = [row for row in own if row["metric"].startswith(quantities.MINUS)]
    if not found:
        return []
    columns = {(r["table"], r["set"]): _column(page, r, names) for r in found}
    cells = {(r["metric"], (r["table"], r["set"])): r for r in found}
    drawn = _table((f"`{quantities.HEADLINE}`", tables.heading), columns, cells)
    title = f"### Accuracy of `{quantities.HEADLINE}` minus that of its rivals, points"
    return [title, drawn, _note(found, "Paired: both on the same tasks.")]


def _came_out(page: Mapping[str, Any], rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Which set's networks came out for which set that was shown."""
    found = [row for row in rows if row["metric"] in metrics]
    titles = short_titles(page, (row["set"] for row in found))
    columns = {m: _words(m.removeprefix(quantities.CAME_OUT)) for m in metrics}
    cells = {(row["set"], row["metric"]): row for row in found}
    drawn = _table(("set shown", lambda name: titles[name]), columns, cells)
    return ["### Which set's networks came out, % of the draws", drawn, _note(found)]


def _column(page: Mapping[str, Any], row: Row, names: Sequence[str]) -> str:
    title = short_titles(page, page["titles"] or [row["set"]]).get(row["set"], _words(row["set"]))
    return title if len(names) == 1 else f"{row['table']}: {title}"


def _note(rows: Sequence[Row], sentence: str = "") -> str:
    """What the ± of a table are over; of the lines that differ from most by name."""
    words: dict[str, str] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = dict.fromkeys(over_words(row) for row in rows if row["method"] == method)
        words[method] = " / ".join(text for text in own if text)
    counted = Counter(text for text in words.values() if text).most_common(1)
    common = counted[0][0] if counted else ""
    parts = [sentence] if sentence else []
    if rows[0]["metric"] in tables.COUNTS:
        parts.append(f"Of {tables.numbers(row['n'] for row in rows)} {rows[0]['over']} a run.")
    if common:
        within, _, seeds = common.rpartition("; ")
        if not within and common.endswith("seeds"):
            parts.append(f"In brackets: the 95 % interval over {seeds}.")
        elif within:
            parts.append(f"±: 95 % interval over {within}; in brackets: over {seeds}.")
        else:
            parts.append(f"±: 95 % interval over {common}.")
    other: dict[str, list[str]] = {}
    for method, text in words.items():
        if text != common:
            other.setdefault(text or "no interval", []).append(f"`{method}`")
    parts += [f"{', '.join(methods)}: {text}." for text, methods in other.items()]
    return " ".join(parts)


def _words(name: str) -> str:
    return name.replace("_", " ")
