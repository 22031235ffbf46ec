"""The pickle reader: arrays of every protocol come back, code never runs."""

from __future__ import annotations

import collections
import os
import pathlib
import pickle

import numpy as np
import pytest

from flown_jax.data.formats import pickles
from flown_jax.errors import UserError
from tests.data import raw_files

PATH = pathlib.Path("file.pkl")
VALUE = {
    "c": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "scalar": np.float32(1.5),
    "bytes": b"\xff\x00",
    "dict": collections.defaultdict(list, {"n1": [0, 2], "n2": [1]}),
    "ordered": collections.OrderedDict(a=(1, "text", None, True)),
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_and_plain_values_come_back(protocol):
    read = pickles.loads(pickle.dumps(VALUE, protocol=protocol), PATH)
    assert read.keys() == VALUE.keys()
    for key, value in VALUE.items():
        if isinstance(value, np.ndarray):
            assert read[key].dtype == value.dtype
            np.testing.assert_array_equal(read[key], value)
        else:
            assert read[key] == value, key


def test_pickle_of_python_2_comes_back():
    array = np.arange(2 * 300, dtype=np.uint8).reshape(2, 300)
    read = pickles.loads(raw_files.python2_pickle(array, labels=[3, 1]), PATH)
    np.testing.assert_array_equal(read[b"data"], array)
    assert read[b"labels"] == [3, 1]


class _Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, exec, getattr, np.load, pickle.loads])
def test_code_never_runs(tmp_path, function):
    made = tmp_path / "made"
    argument = str(made) if function is os.mkdir else "x"
    data = pickle.dumps({"data": _Runs(function, argument)})
    with pytest.raises(UserError, match=r"file\.pkl asks for .*, which is not needed for arrays"):
        pickles.loads(data, PATH)
    assert not made.exists()


def test_arrays_of_objects_are_refused():
    data = pickle.dumps(np.asarray([{}, None], dtype=object))
    with pytest.raises(UserError, match=r"file\.pkl has an array of type 'O8'; only numbers"):
        pickles.loads(data, PATH)


def test_array_type_is_no_function():
    # REDUCE of numpy.ndarray itself would build an array over any memory.
    with pytest.raises(UserError, match="truncated or damaged"):
        pickles.loads(b"\x80\x02cnumpy\nndarray\nK\x01\x85\x85R.", PATH)


# A list that holds one list twice, which holds another twice, and so on; tuples likewise, and
# very many in each other.
LISTS = b"]q\0" + b"".join(b"0]q%c(h%ch%ce" % (k + 1, k, k) for k in range(100))
TOWER = b")q\0" + b"".join(b"0h%ch%c\x86q%c" % (k, k, k + 1) for k in range(100))
DEEP = b")" + b"\x85" * 10**5


def test_what_is_shared_stays_shared():
    value = pickles.loads(LISTS + b".", PATH)
    assert value[0] is value[1] and value[0][0] is value[1][1]
    with pytest.raises(UserError, match="a list where a list of whole numbers is"):
        pickles.integers(value, PATH)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"]q\0h\0a.", "holds itself"),
        (b"}" + TOWER + b"Ns.", "has a tuple as a key"),
        (b"}" + DEEP + b"Ns.", "has a tuple as a key"),
        (b"}(" + TOWER + b"Nu.", "has a tuple as a key"),
        (b"(" + TOWER + b"\x91.", "holds a set"),
        (b"\x8f(" + TOWER + b"\x90.", "holds a set"),
        (b"ccollections\nOrderedDict\n]" + TOWER + b"N\x86a\x85R.", "has a tuple as a key"),
        # A type, an order and an encoding that are lists whose text has no end.
        (b"cnumpy\ndtype\n" + LISTS + b"\x85R.", "damaged: a text is a list"),
        (b"c_codecs\nencode\nX\1\0\0\0a" + LISTS + b"\x86R.", "is a list"),
        # States for what is ours.
        (b"cnumpy.core.multiarray\nscalar\nN}U\x0c__defaults__N\x85s\x86b.", "gives a state to"),
        (b"ccollections\nOrderedDict\n}b0.", "gives a state to|damaged"),
        (b"cnumpy.core.multiarray\nscalar\n.", "holds a function"),
        # Sizes without bytes behind them.
        (b"\x96" + b"\xff" * 7 + b"\x7f.", "truncated or damaged"),
        (b"\x8e" + b"\xff" * 7 + b"\x7f.", "truncated or damaged"),
        (b"(" + b"K\1" * 3 + b"l" + b"\x95" + b"\xff" * 8 + b".", "truncated or damaged"),
    ],
)
def test_small_pickles_that_stand_for_much_are_refused(data, sentence):
    with pytest.raises(UserError, match=sentence):
        pickles.loads(data, PATH)


def test_far_places_of_the_memory_take_no_room():
    assert pickles.loads(b"\x80\x02Nr\xff\xff\xff\x7f.", PATH) is None


@pytest.mark.parametrize("shape", [(-1,), (2**40, 2**40), (True,), (1.5,), ([3],)])
def test_arrays_of_crafted_shapes_are_refused(shape):
    made = _Runs(None)
    state = (1, shape, np.dtype("u1"), False, b"abc")
    made.call = (np.zeros(0, "u1").__reduce__()[0], (np.ndarray, (0,), b"b"), state)
    with pytest.raises(UserError, match="truncated or damaged"):
        pickles.loads(pickle.dumps(made), PATH)


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(VALUE)[:-30]])
def test_damaged_pickles_are_refused(data):
    with pytest.raises(UserError, match=r"file\.pkl is truncated or damaged"):
        pickles.loads(data, PATH)
