"""Which images networks saw: drawn, recorded, and read again."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data import splits
from flown_jax.data.image_sets import ImageSet
from flown_jax.errors import UserError

pytestmark = pytest.mark.fast


def images(count=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8)
    return ImageSet("pets", pixels, np.arange(count, dtype=np.int32) % 3, ("a", "b", "c"), "train")


OTHERWISE = splits.Split(*splits.rows(30, 20, 0))


@pytest.mark.parametrize(("seen", "seed"), [(20, 5), (29, 7), (30, 5)])
def test_what_was_recorded_is_what_is_read(seen, seed):
    own = images()
    chosen, rest = splits.rows(30, seen, seed)
    assert sorted([*chosen, *rest]) == list(range(30)) and len(chosen) == seen
    found = splits.recorded("the zoo", splits.record(own, chosen, seed), own, OTHERWISE)
    assert np.array_equal(found.train, chosen) and np.array_equal(found.unseen, rest)
    assert not found.remark


def test_shares_are_rounded_as_a_count():
    chosen, rest = splits.shares(30, 1 / 6, 3)
    assert np.array_equal(chosen, splits.rows(30, 25, 3)[0]) and len(rest) == 5
    for share in (1.0, -0.1, 2):
        with pytest.raises(UserError, match="a share from 0 below 1"):
            splits.shares(30, share, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images_fingerprint": "0" * 64}, "another set of images of the name pets"),
        ({"train_images": 50}, "trained on 50 images of pets; there are 30"),
        ({"train_images": "20"}, "train_images '20'"),
        ({"train_images": 0}, "train_images 0"),
        ({"train_images": True}, "train_images True"),
        ({"train_images": 19}, "saw other images than the 19"),
        ({"split_seed": 6}, "saw other images than the 20 that split_seed 6"),
        ({"split_seed": -1}, "split_seed -1"),
        ({"split_seed": 5.0}, "split_seed 5.0"),
    ],
)
def test_other_images_than_the_networks_saw_are_refused(change, sentence):
    own = images()
    recipe = splits.record(own, splits.rows(30, 20, 5)[0], 5)
    with pytest.raises(UserError, match=sentence):
        splits.recorded("the zoo", {**recipe, **change}, own, OTHERWISE)


@pytest.mark.parametrize("missing", ["images_fingerprint", "train_images", "split_seed"])
def test_what_is_not_recorded_is_said(missing):
    own = images()
    recipe = splits.record(own, splits.rows(30, 20, 5)[0], 5)
    del recipe[missing]
    found = splits.recorded("the zoo", recipe, own, OTHERWISE)
    assert "does not say which images of pets" in found.remark
    assert np.array_equal(found.train, OTHERWISE.train)


def test_images_of_another_order_are_other_images():
    own = images()
    recipe = splits.record(own, splits.rows(30, 20, 5)[0], 5)
    turned = ImageSet("pets", own.images[::-1], own.labels[::-1], own.class_names, "train")
    with pytest.raises(UserError, match="another set of images"):
        splits.recorded("the zoo", recipe, turned, OTHERWISE)


def test_copies_are_counted_pixel_for_pixel():
    own = images().images
    others = np.concatenate([own[3:5], own[7:8] ^ 1, images(seed=1).images[:4]])
    assert splits.copies(others, own) == 2
    assert splits.copies(own[:0], own) == 0
