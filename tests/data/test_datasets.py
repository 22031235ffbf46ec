"""Few-shot data sets by name: a split that is disjoint and complete, and errors."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data import datasets
from flown_jax.errors import UserError

CONFIG = {
    "seed": 1,
    "alike": 0.4,
    "train_classes": 10,
    "validation_classes": 5,
    "images_per_class": 3,
    "jitter": 1.0,
}


@pytest.fixture(scope="module")
def data():
    return datasets.few_shot("glyphs", **CONFIG)


def test_split_is_disjoint_and_complete(data):
    split = data["split"]
    assert {name: len(ids) for name, ids in split.items() if name != "test"} == {
        "train": 10,
        "validation": 5,
    }
    everything = np.concatenate(list(split.values()))
    assert len(split["test"]) > 0
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(data["characters"])))
    assert data["images"].shape == (len(data["characters"]), 3, 28, 28)
    assert data["foreign_images"].shape[1:] == data["images"].shape[2:]
    assert not any(character.isdigit() for character in data["characters"])


def test_seed_makes_the_split_and_the_images(data):
    again = datasets.few_shot("glyphs", **CONFIG)
    other = datasets.few_shot("glyphs", **{**CONFIG, "seed": 2})
    for name, ids in data["split"].items():
        np.testing.assert_array_equal(again["split"][name], ids)
    np.testing.assert_array_equal(again["images"], data["images"])
    assert set(other["split"]["train"]) != set(data["split"]["train"])
    assert (other["images"] != data["images"]).any()


def test_unknown_set_is_refused_with_those_at_hand():
    with pytest.raises(UserError, match=r"data.name is 'omniglot'.*at hand are glyphs\."):
        datasets.few_shot("omniglot", **CONFIG)


def test_too_few_classes_are_refused_with_their_number():
    with pytest.raises(UserError, match=r"alike = 0.4 leaves \d+ characters, too few for 5000"):
        datasets.few_shot("glyphs", **{**CONFIG, "train_classes": 5000})
