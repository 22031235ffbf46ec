"""The backbone: it learns its classes, grey and colour, with and without changed images."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.image_encoders import backbone, from_module
from flown_jax.image_encoders.backbone import train_backbone
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training import Records, TrainState
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from tests.layers.helpers import quick_jit

CLASSES, SIDE = 3, 12
MODULE = ResNet12((4, 8), num_classes=CLASSES)
RECIPE = Recipe(steps=25, batch=16, learning_rate=0.05, optimizer="sgd", save_every=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """All is compiled without XLA's optimisation: the draw of a start alone takes 5 s with it."""
    monkeypatch.setattr(jax, "jit", quick_jit)


def images(channels=3):
    """Classes that differ in the direction of their stripes, on any background."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([rows, columns, rows + columns])[:, None, :, :, None]
    phase = rng.integers(0, 4, (CLASSES, 20, 1, 1, 1))
    stripes = ((waves + phase) // 2 % 2) * rng.uniform(80, 150, (CLASSES, 20, 1, 1, channels))
    return (stripes + rng.integers(0, 100, stripes.shape)).astype(np.uint8)


@contextlib.contextmanager
def context(folder):
    records = Records(folder)
    try:
        yield StageContext("backbone", folder / "progress", records)
    finally:
        records.close()


def test_it_learns_its_classes(tmp_path):
    shown = images()
    with context(tmp_path) as stage:
        out = train_backbone(stage, MODULE, shown, RECIPE, seed=0, augmentation="degraded")
    assert 0.6 < out["train_accuracy"] <= 1.0  # chance is a third
    encoder = from_module(MODULE, out["variables"])
    assert encoder.features(shown[0]).shape == (20, 8)


class Watched:
    """Stands for the training: keeps what it is given, and ends where it begins."""

    def __call__(self, context, recipe, params, loss_fn, batch_at, *, seed, extra):
        self.params, self.extra, self.batch_at = params, extra, batch_at
        self.loss_fn = jax.jit(loss_fn)
        return TrainState.create(params, recipe.chain(), ema=False, extra=extra)

    def loss(self, key, step=0):
        return float(
            self.loss_fn(self.params, jax.random.key(key), self.batch_at(step), self.extra)[0]
        )


@pytest.mark.parametrize(
    ("channels", "augmentation", "side"), [(1, "none", 12), (3, "random_crop_flip", 10)]
)
def test_the_step_sees_changed_images_and_the_accuracy_whole_ones(
    channels, augmentation, side, tmp_path, monkeypatch
):
    """And the images' changes hang on the step's key alone."""
    shapes, judged = set(), []
    named, logits = backbone.augmentation_named, backbone._logits

    def watched_augmentation(name):
        def augment(key, x):
            out = named(name)(key, x)
            shapes.add(out.shape[1:])
            return out

        return augment

    def watched_logits(module, variables, some):
        judged.append(some.shape)
        return logits(module, variables, some)

    watched = Watched()
    monkeypatch.setattr(backbone, "augmentation_named", watched_augmentation)
    monkeypatch.setattr(backbone, "_logits", watched_logits)
    monkeypatch.setattr(backbone, "train", watched)
    monkeypatch.setattr(backbone, "_CHUNK", 25)
    out = train_backbone(None, MODULE, images(channels), RECIPE, seed=0, augmentation=augmentation)
    assert judged == [(25, 12, 12, channels)] * 2  # of 60 images, whole chunks
    assert 0 <= out["train_accuracy"] <= 1
    losses = [watched.loss(key) for key in (0, 0, 1)]
    assert shapes == {(side, side, channels)}
    assert losses[0] == losses[1]
    assert (losses[0] == losses[2]) == (augmentation == "none")
    assert watched.loss(0, step=1) != losses[0]


def test_what_cannot_be_trained_is_refused(tmp_path):
    with context(tmp_path) as stage:

        def train(shown, **options):
            return train_backbone(stage, MODULE, shown, RECIPE, seed=0, **options)

        with pytest.raises(UserError, match="augmentation is 'mixup'; it is one of none"):
            train(images(), augmentation="mixup")
        with pytest.raises(UserError, match="3 x 10 pixels after the augmentation degraded; the"):
            train(images()[:, :, :4], augmentation="degraded")
        with pytest.raises(UserError, match="3 x 12 pixels; the network takes no fewer than 4 x 4"):
            train(images()[:, :, :3])
        with pytest.raises(ValueError, match="with the network's 3 classes"):
            train(images()[:2])


def test_images_are_brought_to_a_side_without_moving_their_colours():
    flat = np.full((3, 8, 10, 3), [10, 200, 77], np.uint8)
    small = backbone.resized(flat, 4)
    assert small.shape == (3, 4, 4, 3) and small.dtype == np.uint8
    np.testing.assert_array_equal(small, np.full((3, 4, 4, 3), [10, 200, 77], np.uint8))
    stripes = np.tile(np.asarray([0, 255], np.uint8), 4)[None, None, :, None].repeat(8, 1)
    # Antialiased: stripes of one pixel become grey, not black or white.
    assert np.abs(backbone.resized(stripes, 4).astype(int)[:, :, 1:3] - 127).max() < 40
    assert backbone.resized(flat[:, :, :8], 8) is not flat
    same = flat[:, :, :8]
    assert backbone.resized(same, 8) is same
