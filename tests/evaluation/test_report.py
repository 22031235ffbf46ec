"""The HTML page: whole in itself, nothing of it taken for markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

from flown_jax.evaluation.report import html_page, read_table
from flown_jax.evaluation.tables import markdown
from tests.evaluation.rows import SETS, rows


class Reader(HTMLParser):
    """Texts by tag, sources of images, and whether tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.texts, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        elif tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1], data))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page.strip().removeprefix("<!doctype html>"))
    assert reader.open == []
    return reader


def test_the_page_carries_tables_and_pictures_with_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG picture")
    page = html_page(
        "Run <1>",
        "First & foremost.\n\nSecond.",
        {SETS["near"]: markdown(rows(), "near", remarks={"late": "a < b"}) + "\n\n± over < 9"},
        {tmp_path / "a.png": "caption"},
    )
    found = read(page)
    assert found.sources == [
        "data:image/png;base64," + base64.b64encode(b"\x89PNG picture").decode()
    ]
    assert "http" not in page and str(tmp_path) not in page
    assert ("h1", "Run <1>") in found.texts and ("h2", "Near & known") in found.texts
    assert [text for tag, text in found.texts if tag == "p"] == [
        "First & foremost.",
        "Second.",
        "± over < 9",
    ]
    heads = [text for tag, text in found.texts if tag == "th"]
    assert heads == ["method", "accuracy\u00a0%", "minus probe", "NLL", "ECE\u00a0%"]
    cells = [text for tag, text in found.texts if tag == "td"]
    assert cells[:3] == ["linear_", "probe", "50.0\u00a0±\u00a02.0"]
    # A missing figure keeps its cell.
    assert page.count("<td") == 2 * len(heads)
    # Remarks stand once, below all tables, and a row leads to its own.
    assert [text for tag, text in found.texts if tag == "li"] == ["a < b"]
    assert page.count('href="#note-1"') == 1 and page.count('id="note-1"') == 1
    assert page.index("<figure>") < page.index("<table>") < page.index("<ol")


def cells_of(page: str, tag: str = "td") -> list[str]:
    return re.findall(rf"<{tag}( class=\"n\")?>(.*?)</{tag}>", page)


def test_a_number_never_breaks_and_words_do():
    table = "| method | rate | what |\n|---|---|---|\n| `a` | 3.5e-4 ± 1 | 5 or so |\n"
    table += "| `b` |  | words |"
    page = html_page("t", "`It` has 84.1 % ± 1.0 points in 3 s.", {"h": table}, {})
    marked = [bool(number) for number, _ in cells_of(page)]
    assert marked == [False, True, False] * 2
    assert "td.n{white-space:nowrap}" in page
    assert "<code>It</code> has 84.1\u00a0%\u00a0±\u00a01.0\u00a0points in 3\u00a0s." in page
    assert "td:first-child,th:first-child{position:sticky" in page
    assert "prefers-color-scheme:dark" in page


def test_what_takes_the_best_by_test_labels_is_marked():
    table = "| method | accuracy % | top 5 |\n|---|---|---|\n| `flown_top3_query` | 1.0 | 2.0 |"
    page = html_page("t", "i", {"h": table, "g": table.replace("top", "min").split("| `")[0]}, {})
    assert cells_of(page)[0][1].endswith("query\u00a0†")
    assert [text for _, text in cells_of(page, "th")][:3] == [
        "method",
        "accuracy\u00a0%",
        "top 5\u00a0†",
    ]
    assert page.count("takes the best by test labels") == 1


def test_words_of_a_table_keep_their_backquotes():
    table = "| method | x | remark |\n|---|---|---|\n| `a` | 1 | as `b` |"
    assert read_table(f"{table}\n\nmore") == (["method", "x", "remark"], [["a", "1", "as `b`"]])
    assert "as <code>b</code></li>" in html_page("t", "i", {"h": table}, {})


def test_remarks_are_numbered_over_the_page():
    def table(*remarks):
        lines = [f"| `m{i}` | 1.0 | {text} |" for i, text in enumerate(remarks)]
        return "\n".join(["| method | x | remark |", "|---|---|---|", *lines])

    page = html_page("t", "i", {"one": table("a", "", "b"), "two": table("b", "c")}, {})
    assert re.findall(r'href="#note-(\d)"', page) == ["1", "2", "2", "3"]
    assert re.findall(r'id="note-(\d)">(\w)', page) == [("1", "a"), ("2", "b"), ("3", "c")]
