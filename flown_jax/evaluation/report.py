"""A run's results as Markdown and as one HTML page that carries its figures with it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

_STYLE = (
    "body{font-family:sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"  # wide: scrolls
    "td,th{border-bottom:1px solid #ddd;"
    "padding:.25rem .6rem;text-align:right}td:first-child,th:first-child,td:last-child"
    "{text-align:left}img{max-width:100%}figcaption{color:#555;font-size:.9rem}"
)


def html_page(
    title: str, introduction: str, tables: Mapping[str, str], figures: Mapping[Path, str]
) -> str:
    """One page: introduction, tables, figures.

    Args:
      title: of the page. introduction: plain text, paragraphs apart by empty lines.
      tables: heading -> Markdown table, as `tables.markdown` makes it, with text below it or not.
      figures: PNG file -> caption; embedded.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f"<p>{html.escape(p)}</p>" for p in introduction.split("\n\n")]
    for heading, table in tables.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", _html_table(table)]
        parts += [f"<p>{html.escape(p)}</p>" for p in table.split("\n\n")[1:]]
    for path, caption in figures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _html_table(markdown: str) -> str:
    head, _, *body = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in markdown.split("\n\n")[0].splitlines()
    ]
    rows = [_row("th", head), *(_row("td", line) for line in body)]
    return f"<table>{''.join(rows)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"
