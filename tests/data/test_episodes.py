"""Episodes: pure functions of (key, index), without replacement, uniform, blind to class ids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.data.episodes import draw_episodes

pytestmark = pytest.mark.fast

CLASS_IDS = np.asarray([3, 11, 4, 20, 8, 15, 9])
SIZES = np.asarray([9, 6, 30, 7, 6, 8, 12])


@functools.cache
def _drawn(count, start=0):
    draw = jax.jit(
        lambda key, start: draw_episodes(
            key, CLASS_IDS, SIZES, way=3, shot=2, query=4, count=count, start=start
        )
    )
    return jax.tree.map(np.asarray, draw(jax.random.key(0), start))


def test_an_episode_does_not_depend_on_its_company():
    few, many, late = _drawn(10), _drawn(1000), _drawn(5, start=700)
    for a, b, c in zip(*map(jax.tree.leaves, (few, many, late)), strict=True):
        np.testing.assert_array_equal(a, b[:10])
        np.testing.assert_array_equal(c, b[700:705])


def test_without_replacement_and_within_each_class():
    episodes = _drawn(1000)
    size_of = dict(zip(CLASS_IDS, SIZES, strict=True))
    for classes, support, query in zip(
        episodes.classes, episodes.support, episodes.query, strict=True
    ):
        assert len(set(classes)) == 3
        for c, images in zip(classes, np.concatenate([support, query], 1), strict=True):
            assert len(set(images)) == 6
            assert images.min() >= 0 and images.max() < size_of[c]


def test_uniform_over_classes_and_images():
    """Counts within 5 standard deviations of equal shares; a label says nothing of its class."""
    episodes = _drawn(20_000)
    for label in range(3):
        counts = np.asarray([(episodes.classes[:, label] == c).sum() for c in CLASS_IDS])
        share = 20_000 / len(CLASS_IDS)
        assert np.abs(counts - share).max() < 5 * np.sqrt(share)
    of_class = episodes.classes == CLASS_IDS[2]
    for images in (episodes.support[of_class], episodes.query[of_class]):
        for place in range(images.shape[1]):
            counts = np.bincount(images[:, place], minlength=SIZES[2])
            share = counts.mean()
            assert np.abs(counts - share).max() < 5 * np.sqrt(share)


def test_all_images_can_be_drawn():
    episodes = draw_episodes(jax.random.key(1), [0, 1], 4, way=2, shot=1, query=3, count=50)
    images = np.concatenate([episodes.support, episodes.query], -1)
    np.testing.assert_array_equal(np.sort(images, -1), np.broadcast_to(np.arange(4), (50, 2, 4)))
    assert len(np.unique(images.reshape(-1, 4), axis=0)) == 24  # every order occurs


def test_take():
    episodes = _drawn(10)
    images = jnp.arange(21 * 30 * 2).reshape(21, 30, 2)
    support, query = episodes.take(images)
    assert support.shape == (10, 3, 2, 2) and query.shape == (10, 3, 4, 2)
    c, i = episodes.classes[4, 1], episodes.query[4, 1, 3]
    np.testing.assert_array_equal(query[4, 1, 3], images[c, i])


def test_refusals():
    key = jax.random.key(0)
    draw = functools.partial(draw_episodes, key, shot=2, query=4, count=2)
    with pytest.raises(ValueError, match="way=8 needs as many classes; there are 7"):
        draw(CLASS_IDS, SIZES, way=8)
    with pytest.raises(ValueError, match=r"shot \+ query = 6 .* class 5 has 4"):
        draw([1, 5], [6, 4], way=2)
    with pytest.raises(ValueError, match="names each class once"):
        draw([1, 5, 1], 9, way=2)
    with pytest.raises(ValueError, match="way=0"):
        draw([1, 5], 9, way=0)
