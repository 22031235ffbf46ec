"""A meta-model adapted to images at hand."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from flown_jax import MetaModel
from flown_jax.errors import UserError
from flown_jax.networks import adapting
from flown_jax.networks.adaptation import PARTS, VELOCITY
from tests.networks import model

OPTIONS = {"steps": 40, "networks": 4, "batch": 12}
NAMES = ("blue", "red", "green")  # of which the networks' outputs have another order


@pytest.fixture(scope="module")
def shown():
    images, numbers = model.support("colour")
    # Each class has a brightness of its own.
    images = np.clip(images + 50 * (numbers[:, None, None, None] - 2), 0, 255).astype(np.uint8)
    return images, [NAMES[number] for number in numbers]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_lowers_the_loss_and_leaves_the_model_as_it_is(monkeypatch, shown, part):
    made, kept = model.meta_model(), {}
    before = jax.tree.map(np.array, dict(made.arrays))
    fit = adapting.fit

    def recorded(state, step, batch_at, **options):
        def watched(state, batch):
            state, metrics = step(state, batch)
            kept.setdefault("losses", []).append(float(metrics["task"]))
            return state, metrics

        watched.place, watched.collect = step.place, step.collect
        return fit(state, watched, batch_at, **options)

    monkeypatch.setattr(adapting, "fit", recorded)
    rate = {"velocity": 0.03, "residual": 0.3, "decoder": 0.03}[part]
    adapted = made.adapt(*shown, part=part, like="colour", learning_rate=rate, **OPTIONS)
    assert np.mean(kept["losses"][-5:]) < np.mean(kept["losses"][:5])
    jax.tree.map(np.testing.assert_array_equal, before, dict(made.arrays))
    networks = adapted.generate(*shown, like="colour", samples=3)
    # Classes of one name keep their outputs.
    assert networks.classes == ("red", "green", "blue")
    assert f"Its {part} adapted to 12 images." in adapted.description["trained_on"]


def test_an_adapted_model_is_carried_away(tmp_path, shown):
    adapted = model.meta_model().adapt(
        *shown, part="residual", like="colour", steps=2, networks=2, batch=4
    )
    again = MetaModel.load(adapted.export(tmp_path / "m"), allow_functions=True)
    one, other = (m.generate(*shown, like="colour", samples=2).weights for m in (adapted, again))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_numbers_are_outputs(shown):
    images, names = shown
    numbers = [("red", "green", "blue").index(name) for name in names]
    options = {"part": VELOCITY, "like": "colour", "steps": 2, "networks": 2, "batch": 4}
    by_name = model.meta_model().adapt(images, names, **options)
    by_number = model.meta_model().adapt(images, numbers, **options)
    one, other = (made.arrays["velocity"] for made in (by_name, by_number))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), one, other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"part": "encoder"}, "part is 'encoder'; it must be one of velocity, residual, decoder"),
        ({"seed": -1}, "seed is -1"),
        ({"labels": ["a", "b"] * 6}, "the images have 2 classes; the networks tell 3 apart"),
        ({"labels": ["a"]}, "12 images came with 1 labels"),
        ({"like": "nothing"}, "nothing"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(shown, change, sentence):
    given = {"images": shown[0], "labels": shown[1], "like": "colour", **change}
    with pytest.raises(UserError, match=sentence):
        model.meta_model().adapt(**given)
