"""Outputs of networks and the classes of another data set."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data.catalogue import CATALOGUE
from flown_jax.errors import UserError
from flown_jax.networks.class_order import by_name, by_number

pytestmark = pytest.mark.fast


def test_cifar10_and_stl10_share_nine_classes():
    names = [CATALOGUE[n].class_names for n in ("cifar10", "stl10")]
    found = by_name(*names)
    assert len(found.matched) == 9 and found.left == (("frog", "monkey"),)
    assert ("automobile", "car") in found.matched
    back = by_name(names[1], names[0])
    assert tuple(np.asarray(found.classes)[list(back.classes)]) == tuple(range(10))
    # The output that says cat is asked for STL-10's cat.
    cat = names[1].index("cat")
    assert names[0][found.outputs(np.asarray([cat]))[0]] == "cat"
    assert found.names(names[1])[names[0].index("frog")] == "monkey"


def test_strangers_are_matched_by_number():
    found = by_name(("a", "b", "c"), ("x", "B ", "y"))
    assert found.classes == (0, 1, 2) and found.left == (("a", "x"), ("c", "y"))
    assert by_name(("0", "1"), ("zero", "one")).classes == by_number(2).classes
    np.testing.assert_array_equal(by_number(3).outputs(np.asarray([2, 0])), [2, 0])


def test_what_cannot_be_matched_is_told():
    with pytest.raises(UserError, match="2 classes cannot be matched with 3 outputs"):
        by_name(("a", "b", "c"), ("a", "b"))
    with pytest.raises(UserError, match="two classes are named 'automobile'"):
        by_name(("a", "b"), ("car", "automobile"))
