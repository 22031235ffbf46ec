"""Learning rates that starts are given, and what networks that were trained on are worth."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.training import tuning
from flown_jax.weights.spec import WeightSpec

NETWORK = CNN(channels=(2,), kernels=(3,), pools=(False,), hidden=(), num_classes=3)
INPUTS = {"size": 4, "channels": 1, "mean": [0.0], "std": [1.0], "crop": None}


def spec_of():
    shapes = jax.eval_shape(
        lambda key: initialise_cnn(key, NETWORK, (4, 4, 1), "uniform"), jax.random.key(0)
    )
    return WeightSpec.from_module(NETWORK, {"params": shapes}, inputs=INPUTS)


SPEC = spec_of()


def test_a_network_that_diverged_counts_as_chance():
    rng = np.random.default_rng(0)
    weights = np.repeat(rng.normal(size=(1, 3, SPEC.size)).astype(np.float32), 2, axis=0)
    loss = np.asarray([[np.nan] * 3, [0.5, np.nan, 0.5]])
    images = rng.normal(size=(30, 4, 4, 1)).astype(np.float32)
    scores = np.stack([np.asarray(SPEC.apply(row, images)) for row in weights[0]])
    labels = scores[1].argmax(-1)  # the second network is always right
    found = tuning.tuned_accuracy(
        SPEC, {"weights": weights, "train_loss": loss}, (0, 2), images, labels
    )
    right = (scores.argmax(-1) == labels).mean(1)
    np.testing.assert_allclose(found, [right, [right[0], 1 / 3, right[2]]])
    assert found[0, 1] == 1


def test_best_is_the_first_of_equals():
    measured = np.asarray([[0.1, 0.4, 0.4], [0.5, 0.2, 0.3]])
    np.testing.assert_array_equal(tuning.best((1.0, 3.0, 10.0), measured), [3.0, 1.0])


IMAGES = np.random.default_rng(1).normal(size=(40, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(4, SPEC.size)).astype(np.float32)
LABELS = np.asarray(SPEC.apply(WEIGHTS[0], IMAGES)).argmax(-1)
TRIED = {"bad": WEIGHTS[1:2], "good": WEIGHTS[:1]}


def test_each_kind_of_start_has_the_rate_that_validation_images_choose(monkeypatch):
    seen = {}

    def tune(context, spec, vectors, *, seeds, learning_rates, epochs, name, batch, images, labels):
        seen.update(rates=learning_rates, epochs=epochs, batch=batch, name=name)
        # The middle rate leaves networks as they are, the others spoil them.
        moved = [v if rate == 0.1 else -v for v, rate in zip(vectors, learning_rates, strict=True)]
        loss = np.where(learning_rates == 0.3, np.nan, 1.0)[None]
        return {"weights": np.stack(moved)[None], "train_loss": loss}

    monkeypatch.setattr(tuning, "fine_tune", tune)
    data = tuning.Training(IMAGES, LABELS, IMAGES, LABELS)
    found = tuning._chosen(
        None, SPEC, TRIED, (0.1, 0.2, 0.3), data, seeds=range(6), epoch=2, name="rates", batch=5
    )
    assert found.shape == (2,) and found[1] == 0.1
    np.testing.assert_array_equal(seen.pop("rates"), [0.1, 0.2, 0.3] * 2)
    assert seen == {"epochs": (2,), "batch": 5, "name": "rates"}


def test_a_single_rate_is_not_tried(monkeypatch):
    monkeypatch.setattr(tuning, "fine_tune", lambda *_, **__: pytest.fail("nothing to choose"))
    found = tuning._chosen(None, SPEC, TRIED, (0.7,), None, seeds=(), epoch=1, name="rates")
    np.testing.assert_array_equal(found, [0.7, 0.7])
