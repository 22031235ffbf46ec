"""The README: its lines of Python, run as they are printed, on meta-models of random parts."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

from flown_jax import MetaModel
from flown_jax.meta_model.build import build
from tests.few_shot import small
from tests.networks import model as whole
from tests.networks import zoos

TEXT = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def section(name):
    """The text below a heading, to the next one."""
    return TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]


BLOCKS = re.findall(r"```python\n(.*?)```", section("Three lines"), re.DOTALL)


def heads():
    about = small.description(entries=("features", "shots"))
    arrays = small.arrays(about)
    return MetaModel(build(about, arrays), arrays), small.SIDE, 4


def networks():
    return whole.meta_model(), whole.SIDE, zoos.CLASSES


@pytest.mark.parametrize(("block", "make"), list(zip(BLOCKS, (heads, networks), strict=True)))
def test_the_three_lines_run(block, make, monkeypatch):
    model, side, classes = make()
    monkeypatch.setattr(MetaModel, "pretrained", lambda name: model)
    rng = np.random.default_rng(0)
    names = {
        "images": rng.integers(0, 256, (2 * classes, side, side), dtype=np.uint8),
        "labels": list(range(classes)) * 2,
        "new_images": rng.integers(0, 256, (5, side, side), dtype=np.uint8),
    }
    exec(block, names)
    assert names["networks"].predict(names["new_images"]).shape == (5, classes)


def test_single_pieces_import_what_there_is():
    (block,) = re.findall(r"```python\n(.*?)```", section("Single pieces"), re.DOTALL)
    from flown_jax import flow

    found = re.findall(r"flow\.(\w+)", block)
    assert found
    for name in found:
        assert hasattr(flow, name), name


def test_it_is_a_page():
    """A skimmer's: tables of a few rows, and each command of the set-up whole in one line."""
    assert len(TEXT.splitlines()) <= 150
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL):
        assert len(block.splitlines()) == 1
    for table in re.findall(r"(?:^\|.*\n)+", section("Results at a glance"), re.MULTILINE):
        rows = table.splitlines()
        assert len(rows) <= 2 + 6 and all(row.count("|") <= 5 for row in rows)
