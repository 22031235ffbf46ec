"""The zoos that come with the repository: whole, and worth what their manifests say."""

from __future__ import annotations

import os
import pathlib

import jax
import numpy as np
import pytest

from flown_jax.data.formats import npz
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.weights import zoo
from tests.parity.fixtures import ROOT

ZOOS = sorted(path.parent for path in (ROOT / "zoos").glob("*/manifest.json"))


@pytest.mark.parametrize("path", ZOOS, ids=lambda path: path.name)
def test_every_zoo_loads_and_has_networks_to_learn_from_and_others(path):
    found = zoo.load(path)
    assert np.isfinite(found.weights).all() and found.weights.shape == (len(found), found.spec.size)
    assert {"train", "held_out"} == set(found.table["split"])
    assert found.spec.inputs_dict["size"] and found.recipe and found.dataset
    variables = found.variables(0)
    assert np.array_equal(found.spec.flatten(variables), found.weights[0])


def test_they_are_small_enough_to_be_cloned():
    files = [file for path in ZOOS for file in path.iterdir()]
    assert ZOOS and sum(file.stat().st_size for file in files) < 10e6


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_networks_reach_the_accuracy_of_their_manifest_on_real_images(name):
    folder = pathlib.Path(os.environ.get("FLOWN_DATA_DIR", ROOT / "../shared/data"))
    raw = npz.find(name, folder) if folder.is_dir() else None
    if raw is None:
        pytest.skip(f"no {name}.npz: set FLOWN_DATA_DIR to the folder of image data")
    test_set = raw.splits["test"]()
    found = zoo.load(ROOT / "zoos" / f"{name}_short", split="held_out").select([0, -1])
    images = Preprocessing.from_dict(found.spec.inputs_dict).apply(test_set.images)
    scores = jax.jit(jax.vmap(found.spec.apply, in_axes=(0, None)))(found.weights, images)
    accuracy = (np.asarray(scores).argmax(-1) == test_set.labels).mean(1)
    # Another form of the same sums moves an image or two across a border.
    np.testing.assert_allclose(accuracy, found.table["test_accuracy"], atol=3e-4)
