"""The HTML page: whole in itself, nothing of it taken for markup."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

from flown_jax.evaluation.report import html_page
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
        elif tag != "meta":
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
    assert heads == ["method", "accuracy %", "minus probe", "NLL", "ECE %", "remark"]
    cells = [text for tag, text in found.texts if tag == "td"]
    assert cells[:5] == ["linear_probe", "50.0 ± 2.0", "+0.0 ± 0.0", "1.250 ± 0.100", "12.5 ± 1.0"]
    assert cells[-1] == "a < b"
    # A missing figure keeps its cell.
    assert page.count("<td>") == 2 * len(heads)
