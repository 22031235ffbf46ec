"""ELMES against the published construction."""

import numpy as np
import pytest

from flown_jax.conditioning.elmes import elmes, simplex
from tests.parity.fixtures import load

pytestmark = pytest.mark.fast


def test_every_pair_of_the_fixture(source):
    fixture = load("elmes", source)
    assert fixture.config["pairs"]
    for width, num_classes in fixture.config["pairs"]:
        name = f"p{width}_C{num_classes}"
        expected = fixture.outputs[name]
        actual = elmes(num_classes, width, seed=fixture.config["seed"])
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        # The fixture asks for 1e-6 absolute (rounding of one QR against another).
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(
            simplex(fixture.inputs[name]), expected, rtol=0, atol=1e-6, err_msg=name
        )
