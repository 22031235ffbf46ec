"""Support draws and their conditions: other images each time, the same numbers in any chunks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.data.episodes import draw_supports
from flown_jax.data.preprocessing import grey
from flown_jax.errors import UserError
from flown_jax.image_encoders import encoded
from flown_jax.models.heads import FeatureTransform
from flown_jax.networks.conditions import conditions, nearest_set
from tests.few_shot import small

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(small.WAY), 12))
OPTIONS = {"shot": 4, "draws": 20, "pool": 0}


def draws(seed=0, **options):
    return draw_supports(seed, LABELS, small.WAY, **(OPTIONS | options))


def test_support_images_are_different_ones_of_their_class():
    found = draws()
    assert found.shape == (20, small.WAY, 4)
    for c in range(small.WAY):
        assert np.all(LABELS[found[:, c]] == c)
        assert set(found[:, c].ravel()) == set(np.flatnonzero(c == LABELS))
    assert all(len(set(row)) == 4 for row in found.reshape(-1, 4))
    assert len(np.unique(found.reshape(20, -1), axis=0)) == 20
    np.testing.assert_array_equal(found, draws())
    assert np.any(found != draws(seed=1))


def test_a_pool_is_the_first_images_of_a_class():
    found = draws(pool=5)
    for c in range(small.WAY):
        assert set(found[:, c].ravel()) == set(np.flatnonzero(c == LABELS)[:5])
    # As many as are needed: all of them, each time.
    whole = np.sort(draws(pool=4), axis=-1)
    assert np.all(whole == whole[:1])


def test_too_few_images_are_named():
    with pytest.raises(UserError, match="class 0 has 12 images to draw .* from; 13 are needed"):
        draws(shot=13)
    with pytest.raises(UserError, match="class 0 has 3 images .* 4 are needed"):
        draws(pool=3)
    with pytest.raises(UserError, match="class 3 has 0 images"):
        draw_supports(0, LABELS, small.WAY + 1, **OPTIONS)


@pytest.mark.parametrize("entries", [("features", "shots"), ("features", "caml")])
def test_chunks_give_what_the_whole_gives(entries):
    conditioner = small.parts(entries=entries).conditioner
    features = np.random.default_rng(1).normal(size=(len(LABELS), small.WIDTH))
    features = features.astype(np.float32)
    supports = draws(draws=7)
    whole = conditions(conditioner, features, supports, chunk=7)
    assert set(whole) == set(entries)
    np.testing.assert_allclose(whole["features"], features[supports].mean(2), atol=1e-6)
    in_parts = conditions(conditioner, features, supports, chunk=4)  # four and three
    for name, value in whole.items():
        assert value.shape[:2] == (7, small.WAY)
        np.testing.assert_allclose(in_parts[name], value, atol=1e-5)


class Flat:
    """An image encoder whose features are the values."""

    def features(self, images):
        self.seen = images
        return images.reshape(len(images), -1).astype(np.float32)


@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("taken", [1, 3])
def test_images_get_the_channels_that_the_encoder_takes(given, taken):
    images = np.random.default_rng(2).integers(0, 256, (5, 2, 2, given), dtype=np.uint8)
    expected = images if given == taken else grey(images) if taken == 1 else images.repeat(3, -1)
    encoder = Flat()
    transform = FeatureTransform(jnp.full(4 * taken, 100.0), jnp.asarray(2.0))
    found = encoded(encoder, transform, images, taken)
    np.testing.assert_array_equal(encoder.seen, expected)
    centred = expected.reshape(5, -1) - 100.0
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(found, 2 * centred / norms, rtol=1e-5)


def test_retrieval_names_the_set_whose_draws_are_nearest():
    rng, banks = np.random.default_rng(3), {}
    for i, name in enumerate(("far", "near", "between")):
        centre = {"a": rng.normal(size=(1, 2, 3)), "b": rng.normal(size=(1, 2, 5))}
        noise = 0.05 * rng.normal(size=(4 + i, 2, 1))
        banks[name] = {key: value + noise for key, value in centre.items()}
    shown = ["near", "far", "near", "between"]
    rows = [{k: v[0] for k, v in banks[name].items()} for name in shown]
    # Named arrays are found by their names, in whatever order they come.
    condition = {k: np.stack([row[k] for row in rows]) for k in ("b", "a")}
    assert nearest_set(condition, banks) == shown
    # It is the mean that counts, not a single draw.
    spread = {"a": np.array([-3.0, 3.0])[:, None, None]}
    tight = {"a": np.array([1.0, 1.4])[:, None, None]}
    single = {"a": np.array([2.5])[:, None, None]}
    assert nearest_set(single, {"spread": spread, "tight": tight}) == ["tight"]
