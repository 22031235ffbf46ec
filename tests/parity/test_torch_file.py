"""A checkpoint of the zoo's own code, read without torch, against the numbers that went in."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import.files import read_state_dict
from tests.parity import fixtures


@pytest.fixture(scope="module")
def zoo(source):
    return fixtures.load("zoo_models", source)


def test_a_real_checkpoint_gives_its_parameters_exactly(zoo, tmp_path):
    path = tmp_path / "checkpoints"
    path.write_bytes(zoo.inputs["torch_file.checkpoints"].tobytes())
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


def test_the_format_before_torch_1_6_is_one_sentence(zoo, tmp_path):
    path = tmp_path / "checkpoints"
    path.write_bytes(zoo.inputs["torch_file.legacy_checkpoints"].tobytes())
    with pytest.raises(UserError, match=r"checkpoints has PyTorch's format from before torch 1\.6"):
        read_state_dict(path)
