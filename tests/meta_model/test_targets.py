"""Kinds of targets: known by name, and what one refuses that does not do more than it must."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.few_shot.space import HeadSpace
from flown_jax.meta_model import targets
from flown_jax.meta_model.targets import RunImages, Support, Target, TargetSpace
from flown_jax.networks.space import NetworkSpace

pytestmark = pytest.mark.fast


class Numbers(Target):
    """Weights that are their own targets."""

    def normalise(self, weights, context):
        return weights

    def restore(self, x1, context):
        return x1

    def task_loss(self, weights, batch):
        return (weights - batch["wanted"]) ** 2


NUMBERS = Numbers()


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    """Kinds that are forgotten with the test."""
    monkeypatch.setattr(targets, "_REGISTERED", dict(targets._REGISTERED))


def test_a_kind_is_registered_once_and_the_same_again_changes_nothing():
    targets.register("numbers", Numbers)
    targets.register("numbers", Numbers)
    assert targets.registered("numbers") is Numbers
    with pytest.raises(
        ValueError, match="kind of target 'numbers' is .*Numbers.*, not .*HeadSpace"
    ):
        targets.register("numbers", HeadSpace)
    assert targets.registered("numbers") is Numbers


def test_the_librarys_kinds_are_known_and_are_target_spaces():
    assert targets.registered("heads") is HeadSpace
    assert targets.registered("networks") is NetworkSpace
    for kind in (HeadSpace, NetworkSpace, Numbers):
        assert issubclass(kind, TargetSpace)
    assert not isinstance(object(), TargetSpace)


def test_an_unknown_kind_is_one_sentence(monkeypatch):
    monkeypatch.setattr(targets, "_REGISTERED", {"heads": object, "curves": object})
    with pytest.raises(UserError) as told:
        targets.registered("tails")
    assert str(told.value).startswith(
        "the meta-model's kind of target is 'tails'; known here are curves, heads."
    )
    monkeypatch.setattr(targets, "_REGISTERED", {})
    with pytest.raises(UserError, match="'tails'; known here are none.$"):
        targets.registered("tails")


def test_what_a_target_does_not_do_is_one_sentence():
    weights, support = np.ones((2, 3)), Support(np.ones((1, 4)), np.zeros(1, int), ("a",), {})
    refused = {
        "^Numbers is no target space that can be exported.$": NUMBERS.describe,
        "^Numbers does not tell the shape of its targets.$": lambda: NUMBERS.shape,
        "^weights of this meta-model are no classifiers.$": lambda: NUMBERS.probabilities(
            weights, {}, RunImages(None, np.ones((1, 2, 2, 1)))
        ),
        "^like is 'cows'; it is for whole networks, not for weights.$": lambda: NUMBERS.classes(
            ["a"], False, "cows"
        ),
    }
    for sentence, call in refused.items():
        with pytest.raises(UserError, match=sentence):
            call()
    # And what it does without being asked to.
    assert NUMBERS.classes(["b", "a"], False, None) == ["b", "a"] and not NUMBERS.resizes
    assert NUMBERS.context(support) == {} and NUMBERS.unit({}) == 1.0
    assert NUMBERS.fits(weights, 7, {}) and NUMBERS.restored(NUMBERS.stored({"a": 1})) == {"a": 1}
    for found, one in zip(NUMBERS.state_dicts(weights, {}), weights, strict=True):
        np.testing.assert_array_equal(found["weights"], one)
