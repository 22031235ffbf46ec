"""Keys by name: other names, other draws."""

from __future__ import annotations

import jax
import pytest

from flown_jax.meta_model.keys import named_key, named_seed

pytestmark = pytest.mark.fast


def test_every_seed_name_and_order_has_its_own():
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", 0), ("a", 1), ("a", "0")]
    places = [(seed, *of) for seed in (0, 1, 20, 21) for of in names]
    keys = {tuple(jax.random.key_data(named_key(*place)).tolist()) for place in places}
    assert len(keys) == len(places)
    assert len({named_seed(*place) for place in places}) == len(places)


def test_they_are_the_same_in_every_process():
    # Python's own hash is another one in each.
    assert named_seed(3, "flown", 1) == 1941175353
    assert jax.random.key_data(named_key(3, "flown", 1)).tolist() == [858661783, 2454322792]
