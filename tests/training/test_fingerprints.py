"""What inputs are as JSON values: the same for the same content, and only for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.training.fingerprints import Deferred, difference, own_fingerprint, plain_values
from flown_jax.training.stages import fingerprint

pytestmark = pytest.mark.fast


@dataclass(frozen=True)
class Plan:
    seeds: tuple[int, ...]
    rate: float = 0.5


@dataclass(frozen=True)
class OtherPlan:
    seeds: tuple[int, ...]
    rate: float = 0.5


class Images:
    name = "digits"

    def __init__(self, content):
        self.content = content

    def fingerprint(self):
        return self.content * 64


def mark(value):
    return fingerprint("s", {"x": value})


def test_inputs_are_canonical():
    config = ml_collections.ConfigDict({"a": (1, 2), "b": {"c": np.float32(0.5)}})
    assert plain_values(config) == {"a": [1, 2], "b": {"c": 0.5}}
    assert fingerprint("s", config) == fingerprint("s", {"b": {"c": 0.5}, "a": [1, 2]})
    assert fingerprint("s", config) != fingerprint("t", config)
    assert plain_values(plain_values(config)) == plain_values(config)


@pytest.mark.parametrize(
    "bad",
    [
        float("nan"),
        np.float32("inf"),
        object(),
        {1, 2},
        b"x",
        1j,
        np.array([{}, 1]),
        np.datetime64("2020-01-01"),
        Plan,
        mark,
        Plan((1, object())),
    ],
)
def test_what_has_no_content_is_refused_by_name(bad):
    with pytest.raises(UserError, match=r"inputs\.x\.0.* must be JSON values or stage results"):
        plain_values({"x": [bad]})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.bool_(True), True),
        (np.array(True), True),
        (np.array(3, np.int32), 3),
        (jnp.asarray(0.5, jnp.bfloat16), 0.5),
        (np.float32(0.1), 0.10000000149011612),
        (np.str_("a"), "a"),
    ],
)
def test_single_numbers_are_plain(value, plain):
    assert plain_values(value) == plain and type(plain_values(value)) is type(plain)


def test_keys_that_become_one_are_refused():
    assert mark({1: 2}) == mark({"1": 2})
    with pytest.raises(UserError, match=r"inputs\.x has two keys that are the same"):
        mark({1: 2, "1": 3})


def test_fields_of_configs_may_have_any_name():
    """A field `fingerprint` does not stand for its config."""
    for fields in ({"fingerprint": "f" * 64, "name": "a", "rate": 1}, {"name": "b", "rate": 1}):
        for config in (fields, ml_collections.ConfigDict(fields)):
            assert plain_values(config) == fields and own_fingerprint(config) is None
            assert mark(config) != mark(ml_collections.ConfigDict({**fields, "rate": 2}))


def test_arrays_stand_by_their_content():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    changed = values.copy()
    changed[1, 2] += 1
    same = (values.copy(), np.asfortranarray(values), jnp.asarray(values))
    assert {mark(array) for array in same} == {mark(values)}
    others = (changed, values.T, values.reshape(3, 2), values.astype(np.float64), [values], [1.0])
    assert len({mark(other) for other in (values, *others)}) == 1 + len(others)
    assert plain_values(values)["shape"] == [2, 3]
    assert mark((values, changed)) == mark([values, changed]) != mark([changed, values])
    halves = values.astype(jnp.bfloat16)
    assert mark(jnp.asarray(halves)) == mark(halves) != mark(values)


def test_random_keys_stand_by_their_state():
    keys = [jax.random.key(0), jax.random.key(1), jax.random.key(0, impl="rbg")]
    assert len({mark(key) for key in [*keys, jax.random.split(keys[0])]}) == 4
    assert mark(jax.random.key(0)) == mark(keys[0])


def test_dataclasses_stand_by_class_and_fields():
    plan = Plan((1, 2))
    assert plain_values(plan) == {"class": "Plan", "seeds": [1, 2], "rate": 0.5}
    assert mark(plan) == mark(Plan((1, 2)))
    assert len({mark(p) for p in (plan, replace(plan, rate=1.0), OtherPlan((1, 2)))}) == 3


def test_what_has_a_fingerprint_stands_by_it():
    assert plain_values(Images("a")) == {"name": "digits", "fingerprint": "a" * 64}
    assert mark(Images("a")) == mark(Images("a")) != mark(Images("b"))
    unnamed = Images("a")
    unnamed.name = object()  # no text
    assert plain_values(unnamed) == {"fingerprint": "a" * 64}


def test_deferred_values_are_checked_when_they_are_made():
    good = Images("a")
    assert Deferred("a" * 64, lambda: good, "the images of digits")() is good
    with pytest.raises(UserError) as caught:
        Deferred("b" * 64, lambda: good, "the images of digits")()
    assert str(caught.value) == (
        "the images of digits are no longer those that the run was begun with: choose a new "
        "--workdir."
    )


def test_the_first_difference_is_named():
    assert difference({"a": {"b": 1}, "c": 1}, {"a": {"b": 2}, "c": 2}) == (
        "a.b = 1, and now has a.b = 2"
    )
    assert difference({"a": [1]}, {"a": [1]}) is None
    assert "x" * 76 + "..." in difference({"a": "x" * 200}, {"a": 1})
