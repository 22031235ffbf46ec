"""A checkpoint of the zoo's own code, read without torch, against the numbers that went in."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.torch_import.files import read_state_dict
from tests.parity import fixtures


@pytest.fixture(scope="module")
def zoo(source):
    return fixtures.load("zoo_models", source)


@pytest.mark.parametrize("form", ["checkpoints", "legacy_checkpoints"])  # since and before 1.6
def test_a_real_checkpoint_gives_its_parameters_exactly(zoo, form, tmp_path):
    path = tmp_path / "checkpoints"
    path.write_bytes(zoo.inputs[f"torch_file.{form}"].tobytes())
    found = read_state_dict(path)
    expected = {
        name.removeprefix("small1."): value
        for name, value in zoo.params.items()
        if name.startswith("small1.")
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    vector = np.concatenate([value.reshape(-1) for value in found.values()])
    np.testing.assert_array_equal(vector, zoo.outputs["small1.vector"])
