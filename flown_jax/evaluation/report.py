"""A run's results as one HTML page that carries its figures with it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flown_jax.evaluation.tables import CHOSEN_HEADINGS, chosen_on_test

REMARK = "remark"  # heading of the last column of a table that has remarks
CHOSEN = "† takes the best by test labels: the paper's statistic, and no result."
_NUMBER = re.compile(r"[+\-±]?\.?\d")
_STYLE = (
    ":root{color-scheme:light dark;--page:#fff;--text:#222;--quiet:#555;--line:#ddd;--link:#1a66b3}"
    "@media(prefers-color-scheme:dark){:root{--page:#14171a;--text:#dfe3e6;--quiet:#9aa3ab;"
    "--line:#353b41;--link:#7db6f0}}"
    "body{font-family:sans-serif;line-height:1.45;max-width:70rem;margin:2rem auto;"
    "padding:0 1rem;background:var(--page);color:var(--text)}"
    "a{color:var(--link)}h1,h2{line-height:1.2;overflow-wrap:anywhere}"
    "h2{margin-top:2.2rem}p,li,figcaption{max-width:48rem}"
    ".wide{overflow-x:auto}"
    "table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums}"
    "td,th{box-shadow:inset 0 -1px var(--line);padding:.25rem .7rem;text-align:left;"
    "vertical-align:top}th{vertical-align:bottom}"
    ".n{text-align:right}td.n{white-space:nowrap}"
    # The first column stays while the others pass below it.
    "td:first-child,th:first-child{position:sticky;left:0;background:var(--page);padding-left:0;"
    "max-width:16rem}"
    "code{font-size:.95em}sup{line-height:0}sup a{text-decoration:none;padding:0 .15rem}"
    "figure{margin:1.5rem 0}img{max-width:100%;background:#fff;border-radius:4px}"
    "figcaption,.notes{color:var(--quiet);font-size:.9rem}"
    "@media(max-width:40rem){body{margin-top:1rem}figure img{max-width:40rem}"
    "td:first-child,th:first-child{max-width:8.5rem}td,th{padding:.25rem .5rem}}"
)


def html_page(
    title: str, introduction: str, tables: Mapping[str, str], figures: Mapping[Path, str]
) -> str:
    """One page: introduction, figures, tables, and the tables' remarks as footnotes.

    Args:
      title: of the page. introduction: plain text, paragraphs apart by empty lines.
      tables: heading -> Markdown table, as `tables.markdown` makes it, with text below it or not.
      figures: PNG file -> caption; embedded.
    """
    parts = [f"<h1>{_text(title)}</h1>"]
    parts += [f"<p>{_text(p)}</p>" for p in introduction.split("\n\n")]
    for path, caption in figures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(
            f'<figure><div class="wide"><img alt="{html.escape(caption)}" '
            f'src="data:image/png;base64,{data}"></div>'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    notes: dict[str, int] = {}
    for heading, table in tables.items():
        parts += [f"<h2>{_text(heading)}</h2>", _html_table(heading, table, notes)]
        parts += [f'<p class="notes">{_text(p)}</p>' for p in table.split("\n\n")[1:]]
    if notes:
        items = "".join(f'<li id="note-{i}">{_text(text)}</li>' for text, i in notes.items())
        parts.append(f'<h2>Remarks</h2><ol class="notes">{items}</ol>')
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def read_table(markdown: str) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table that a text begins with; no backquotes around a whole cell."""
    head, _, *body = [
        [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip()[1:-1].split("|")]
        for line in markdown.split("\n\n")[0].splitlines()
    ]
    return head, body


def _html_table(heading: str, markdown: str, notes: dict[str, int]) -> str:
    """A table in a frame that scrolls; remarks go to the notes, text -> number."""
    head, body = read_table(markdown)
    remarks = [""] * len(body)
    if head[-1] == REMARK:
        head = head[:-1]
        remarks = [line[-1] for line in body]
        body = [line[:-1] for line in body]
    numbers = [i > 0 and _numbers([line[i] for line in body]) for i in range(len(head))]
    chosen = [text in CHOSEN_HEADINGS for text in head]
    marks = ["\u00a0†" if on_test else "" for on_test in chosen]
    heads = [_text(text) + mark for text, mark in zip(head, marks, strict=True)]
    rows = [_row("th", heads, numbers)]
    for line, remark in zip(body, remarks, strict=True):
        cells = [_text(text) for text in line]
        cells[0] = cells[0].replace("_", "_<wbr>") + ("\u00a0†" if chosen_on_test(line[0]) else "")
        if remark:
            number = notes.setdefault(remark, len(notes) + 1)
            title = html.escape(remark)
            cells[0] += f'<sup><a href="#note-{number}" title="{title}">{number}</a></sup>'
        rows.append(_row("td", cells, numbers))
    label = html.escape(heading)
    frame = f'<div class="wide" role="region" aria-label="{label}" tabindex="0">'
    marked = any(chosen) or any(chosen_on_test(line[0]) for line in body)
    return f"{frame}<table>{''.join(rows)}</table></div>" + (
        f'<p class="notes">{_text(CHOSEN)}</p>' if marked else ""
    )


def _numbers(column: Sequence[str]) -> bool:
    """Whether a column holds figures: they stand right and never break over two lines."""
    return all(_NUMBER.match(text) or text in ("", "-") for text in column)


def _row(tag: str, cells: Sequence[str], numbers: Sequence[bool]) -> str:
    classes = [' class="n"' if number else "" for number in numbers]
    return (
        "<tr>"
        + "".join(f"<{tag}{c}>{text}</{tag}>" for text, c in zip(cells, classes, strict=True))
        + "</tr>"
    )


def _text(text: str) -> str:
    """Escaped, and a number stays in one line with its unit and its interval."""
    text = re.sub(r" (?=%)|(?<=\d) (?=points?\b|s\b|GiB\b)|(?<=[\d%]) (?=± ?\d)", "\u00a0", text)
    text = html.escape(re.sub(r"± (?=\d)", "±\u00a0", text), quote=False)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
