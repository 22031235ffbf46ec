"""The README's lines of Python, run as they are printed, on meta-models of random parts."""

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
SECTION = TEXT[TEXT.index("## Three lines") : TEXT.index("## Single pieces")]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def heads():
    about = small.description(entries=("features", "shots"))
    arrays = small.arrays(about)
    return MetaModel(build(about, arrays), arrays), small.SIDE, 4


def networks():
    return whole.meta_model(), whole.SIDE, zoos.CLASSES


@pytest.mark.parametrize(("block", "make"), list(zip(BLOCKS, (heads, networks), strict=True)))
def test_the_three_lines_run(block, make, monkeypatch):
    model, side, classes = make()
    monkeypatch.setattr(MetaModel, "restore", lambda workdir: model)
    rng = np.random.default_rng(0)
    names = {
        "images": rng.integers(0, 256, (2 * classes, side, side), dtype=np.uint8),
        "labels": list(range(classes)) * 2,
        "new_images": rng.integers(0, 256, (5, side, side), dtype=np.uint8),
        "new_labels": np.zeros(5, int),
    }
    exec(block, names)
    assert names["networks"].predict(names["new_images"]).shape == (5, classes)


def test_single_pieces_import_what_there_is():
    section = TEXT[TEXT.index("## Single pieces") : TEXT.index("## Speed")]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    from flown_jax import flow

    for name in re.findall(r"flow\.(\w+)", block):
        assert hasattr(flow, name), name
