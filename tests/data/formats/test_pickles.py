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


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(VALUE)[:-30]])
def test_damaged_pickles_are_refused(data):
    with pytest.raises(UserError, match=r"file\.pkl is truncated or damaged"):
        pickles.loads(data, PATH)
