"""Orders of layers: by shape, by number, by the file, or none."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import import convert
from flown_jax.torch_import.layer_order import layers_in_order
from flown_jax.torch_import.names import fitting, without_wrappers

pytestmark = pytest.mark.fast

CONV, HIDDEN, LAST = (4, 4, 3, 3), (8, 8), (10, 8)


def shapes(*layers, leaves=("weight", "bias")):
    return {
        f"{name}.{leaf}": shape if leaf == "weight" else shape[:1]
        for name, shape in layers
        for leaf in leaves
    }


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # Words, in the file's order.
        ([("one", CONV), ("two", CONV), ("end", LAST)], "one two end"),
        ([("b", CONV), ("a", CONV), ("end", LAST)], "b a end"),
        ([("features.0", CONV), ("more.0", CONV), ("end", LAST)], "features.0 more.0 end"),
        # Numbers, whatever the file's order.
        ([("c.11", CONV), ("c.3", CONV), ("end", LAST)], "c.3 c.11 end"),
        ([("end", LAST), ("b2.conv1", CONV), ("b1.conv2", CONV)], "b1.conv2 b2.conv1 end"),
        (
            [("c" + "9" * 5000, CONV), ("c0010", CONV), ("end", LAST)],
            "c0010 c" + "9" * 5000 + " end",
        ),
    ],
)
def test_layers_of_one_shape(layers, expected):
    assert layers_in_order(shapes(*layers), [CONV, CONV, LAST]) == expected.split()


@pytest.mark.parametrize(
    ("layers", "leaves"),
    [
        (
            [("end", LAST), ("one", CONV), ("two", CONV)],
            ("weight", "bias"),
        ),  # shapes deny its order
        ([("one", CONV), ("two", CONV), ("zend", LAST)], ("bias", "weight")),  # sorted by name
        ([("c1", CONV), ("c01", CONV), ("end", LAST)], ("bias", "weight")),  # one number twice
        ([("c1a", CONV), ("c2b", CONV), ("end", LAST)], ("bias", "weight")),  # numbers and words
    ],
)
def test_orders_that_nothing_tells_are_refused(layers, leaves):
    with pytest.raises(UserError, match=r"the layers .*, .* have one shape, and neither numbers"):
        layers_in_order(shapes(*layers, leaves=leaves), [CONV, CONV, LAST])


def test_numbers_that_shapes_deny_are_not_followed():
    sorted_file = shapes(("f1", CONV), ("f2", LAST), ("f3", CONV), leaves=("bias", "weight"))
    with pytest.raises(UserError, match="f1, f3 have one shape"):
        layers_in_order(sorted_file, [CONV, CONV, LAST])


def test_shapes_alone_tell_most_orders():
    layers = [("z", HIDDEN), ("y", LAST), ("x", CONV)]
    found = layers_in_order(shapes(*layers, leaves=("bias", "weight")), [CONV, HIDDEN, LAST])
    assert found == ["x", "z", "y"]


def test_converted_layers_keep_the_file_s_order():
    """Equal layers of other names than the alphabet's order; sorted by name they are refused."""
    config = {"channels": [2, 2], "kernels": [3, 3], "pools": [False] * 2, "hidden": [4, 4]}
    layers = [("stem", (2, 1, 3, 3)), ("body", (2, 2, 3, 3)), ("third", (4, 2))]
    layers += [("second", (4, 4)), ("answer", (10, 4))]
    state = {
        name: np.full(shape, float(i), np.float32)
        for i, (name, shape) in enumerate(shapes(*layers).items())
    }
    params = convert("cnn", state, config)["params"]
    biases = [float(params[name]["bias"][0]) for name in params]
    assert biases == [1, 3, 5, 7, 9]
    config["hidden"] = [2, 2]
    layers = [*layers[:2], ("third", (2, 2)), ("second", (2, 2)), ("answer", (10, 2))]
    state = {name: np.zeros(shape, np.float32) for name, shape in sorted(shapes(*layers).items())}
    with pytest.raises(UserError, match="the layers second, third have one shape"):
        convert("cnn", state, config)


def test_parts_of_wrappers_are_taken_off():
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", ""):
        state = {f"{prefix}{name}": 0 for name in ("a.weight", "b.module.weight")}
        assert list(without_wrappers(state)) == ["a.weight", "b.module.weight"]
    averaged = {"n_averaged": 0, "module.a.weight": 0, "module.b._orig_mod.weight": 0}
    assert list(without_wrappers(averaged)) == ["a.weight", "b.weight"]
    assert list(without_wrappers({"module.a": 0, "b": 0})) == ["module.a", "b"]
    with pytest.raises(UserError, match="'a' twice"):
        without_wrappers({"a": 0, "_orig_mod.a": 0})
    state = {"net.model.a.weight": 0, "net.model.a.bias": 0}
    assert list(fitting(state, lambda names: "a.bias" in names)) == ["a.weight", "a.bias"]
    assert list(fitting(state, lambda names: "c.bias" in names)) == list(state)
