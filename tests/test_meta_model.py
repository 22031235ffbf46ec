"""The meta-model in a user's hands: generate, run, carry away, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flown_jax import GeneratedNetworks, MetaModel
from flown_jax.errors import UserError
from flown_jax.few_shot.parts import build
from tests.few_shot import small

ABOUT = small.description(entries=("caml", "features"))
ARRAYS = small.arrays(ABOUT)
MODEL = MetaModel(build(ABOUT, ARRAYS), ARRAYS)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, small.SIDE, small.SIDE), dtype=np.uint8)
LABELS = ["fox", "owl", "fox", "cat"]
NETWORKS = MODEL.generate(IMAGES, LABELS, samples=3)


def test_classes_keep_the_order_of_their_first_appearance():
    assert NETWORKS.classes == ("fox", "owl", "cat")
    assert NETWORKS.heads.shape == (3, small.WAY, small.WIDTH + 1)
    assert NETWORKS.nfe == 3


def test_probabilities_are_averages_over_the_networks():
    whole = NETWORKS.predict(IMAGES)
    each = NETWORKS.predict(IMAGES, average=False)
    assert each.shape == (3, 4, small.WAY)
    np.testing.assert_allclose(whole, each.mean(0), atol=1e-7)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-6)
    assert NETWORKS.classify(IMAGES) == [NETWORKS.classes[c] for c in whole.argmax(-1)]


def test_labels_may_be_of_any_kind_and_images_of_any_accepted_type():
    numbers = MODEL.generate(IMAGES, np.array([7, 3, 7, 5]), samples=3)
    floats = MODEL.generate(IMAGES[..., None] / 255.0, [(7,), (3,), (7,), (5,)], samples=3)
    np.testing.assert_array_equal(numbers.heads, NETWORKS.heads)
    np.testing.assert_allclose(floats.heads, NETWORKS.heads, atol=1e-5)
    assert numbers.classes == (7, 3, 5)


def test_class_names_fix_the_order():
    named = MODEL.generate(IMAGES, LABELS, class_names=["cat", "fox", "owl"], samples=1)
    assert named.classes == ("cat", "fox", "owl")


def test_another_seed_draws_other_networks():
    assert not np.allclose(MODEL.generate(IMAGES, LABELS, samples=3, seed=1).heads, NETWORKS.heads)


def test_an_exported_model_predicts_the_same(tmp_path):
    MODEL.export(tmp_path / "model")
    loaded = MetaModel.load(tmp_path / "model")
    networks = loaded.generate(IMAGES, LABELS, samples=3)
    np.testing.assert_array_equal(networks.predict(IMAGES), NETWORKS.predict(IMAGES))
    NETWORKS.save(tmp_path / "heads.safetensors")
    again = GeneratedNetworks.load(tmp_path / "heads.safetensors", loaded)
    assert again.classes == NETWORKS.classes
    np.testing.assert_array_equal(again.predict(IMAGES), NETWORKS.predict(IMAGES))


def test_networks_are_saved_with_names_that_come_back_as_they_were(tmp_path):
    numbered = MODEL.generate(IMAGES, np.array([7, 3, 7, 5]), samples=1)
    again = GeneratedNetworks.load(numbered.save(tmp_path), MODEL)
    assert again.classes == numbered.classes and again.nfe == numbered.nfe
    paired = MODEL.generate(IMAGES, [(7,), (3,), (7,), (5,)], samples=1)
    with pytest.raises(UserError, match="class names must be strings or numbers to be saved"):
        paired.save(tmp_path)
    MODEL.export(tmp_path)
    with pytest.raises(UserError, match=r"holds no heads \(3, 5\) of this meta-model"):
        GeneratedNetworks.load(tmp_path / "arrays.safetensors", MODEL)


@pytest.mark.parametrize(
    ("images", "labels", "names", "sentence"),
    [
        (IMAGES[:, :15], LABELS, None, r"images have shape \(4, 15, 16, 1\); .* \(m, 16, 16\)"),
        (IMAGES, LABELS[:3], None, "4 images came with 3 labels"),
        (IMAGES, ["a", "b", "a", "b"], None, "has 2 classes; this meta-model was trained for 3"),
        (IMAGES, LABELS, ["fox", "owl", "cat", "dog"], "class 'dog' has no image"),
        (IMAGES, LABELS, ["fox", "owl", "dog"], "label 'cat' is not among the class names"),
        (IMAGES, [0, 1, 2, 3], range(3), "label 3 is not among the class names"),
        (np.full(IMAGES.shape, np.nan), LABELS, None, "NaN"),
        (IMAGES.astype(float), LABELS, None, r"must lie in \[0, 1\]"),
        (IMAGES.astype(np.int32), LABELS, None, "images are int32"),
    ],
)
def test_a_support_set_that_does_not_fit_is_refused(images, labels, names, sentence):
    with pytest.raises(UserError, match=sentence):
        MODEL.generate(images, labels, class_names=names)


def test_damaged_and_foreign_folders_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="holds no exported meta-model"):
        MetaModel.load(tmp_path)
    with pytest.raises(UserError, match="holds no finished meta-model"):
        MetaModel.restore(tmp_path)
    MODEL.export(tmp_path)
    arrays, record = tmp_path / "arrays.safetensors", tmp_path / "meta_model.json"
    whole = arrays.read_bytes()
    for damaged in (whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1])):
        arrays.write_bytes(damaged)
        with pytest.raises(UserError, match=r"arrays\.safetensors is missing or has changed"):
            MetaModel.load(tmp_path)
    arrays.write_bytes(whole)
    about = json.loads(record.read_text())
    record.write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        MetaModel.load(tmp_path)
    record.write_text(json.dumps({"kind": "something else"}))
    with pytest.raises(UserError, match="is not the description of a flown_jax meta-model"):
        MetaModel.load(tmp_path)
    record.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        MetaModel.load(tmp_path)
