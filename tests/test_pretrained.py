"""The meta-models that come with the package: whole, small, and as good as their cards say."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from experiments.export_model.digits import support
from flown_jax import MetaModel, pretrained
from flown_jax.data import image_sets
from flown_jax.errors import UserError

NAMES = pretrained.names()
TEST = image_sets.load("digits", "test")


def told(name: str) -> float:
    """Share of the test digits that the card says the stored meta-model gets right."""
    found = re.search(r"right about (\d+\.\d) % of 597 test images", pretrained.card(name))
    assert found is not None
    return float(found[1]) / 100


def test_there_are_few_and_they_are_small():
    assert NAMES == ["glyphs", "networks"]
    files = [path for name in NAMES for path in pretrained.folder(name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 5e6


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_made_it_and_where_it_ends(name):
    card = pretrained.card(name)
    for part in (
        "Trained on ",
        "python -m experiments.",
        "--config.seed=0",
        "## Limits",
        "| `flown",
    ):
        assert part in card, part
    assert re.search(r"\d{4}-\d\d-\d\d, \d+ s of work and at most \d", card)


@pytest.mark.parametrize("name", NAMES)
def test_digits_are_told_apart_as_the_card_says(name):
    networks = MetaModel.pretrained(name).generate(*support(10), samples=20)
    right = np.asarray(networks.classify(TEST.images)) == TEST.labels
    # Another form of the same sums moves an image or two across a border.
    assert right.mean() == pytest.approx(told(name), abs=0.01) and told(name) > 0.8


def test_glyphs_makes_heads_of_other_classes_than_it_was_trained_for():
    model = MetaModel.pretrained("glyphs")
    images, _ = support(10)
    one_each = np.arange(0, 50, 5)[[3, 5, 7]]  # one image a class
    names = ["three", "five", "seven"]
    networks = model.generate(images[one_each], names)
    kept = np.isin(TEST.labels, [3, 5, 7])
    wanted = [names[(label - 3) // 2] for label in TEST.labels[kept]]
    right = (np.asarray(networks.classify(TEST.images[kept])) == wanted).mean()
    assert right > 0.6


def test_an_unknown_name_is_told_all_names():
    with pytest.raises(UserError) as said:
        MetaModel.pretrained("glyph")
    assert str(said.value) == (
        f"there is no pretrained meta-model 'glyph'; there are {', '.join(NAMES)}, and the nearest "
        "is glyphs."
    )
    for name in ("../glyphs", "", 3):
        with pytest.raises(UserError, match="there is no pretrained meta-model"):
            MetaModel.pretrained(name)


def test_a_damaged_one_is_one_sentence(tmp_path, monkeypatch):
    for name in NAMES:
        shutil.copytree(pretrained.folder(name), tmp_path / name)
    monkeypatch.setattr(pretrained, "_HERE", tmp_path)
    arrays = tmp_path / "glyphs" / "arrays.safetensors"
    data = bytearray(arrays.read_bytes())
    data[-1] ^= 1
    arrays.write_bytes(data)
    with pytest.raises(UserError, match=r"arrays\.safetensors is missing or has changed since"):
        MetaModel.pretrained("glyphs")
    arrays.unlink()
    with pytest.raises(UserError, match=r"arrays\.safetensors is missing or has changed since"):
        MetaModel.pretrained("glyphs")


def test_nothing_but_what_generating_needs_is_stored():
    for name in NAMES:
        record = json.loads((pretrained.folder(name) / "meta_model.json").read_text())
        assert set(record) == {"kind", "format", "description", "sha256", "checksum"}
        assert "encoder" not in str(MetaModel.pretrained(name).arrays["codec"].keys())
