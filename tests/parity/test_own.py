"""The committed fixtures are what their scripts make, and small."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.fixtures import OWN, Fixture
from tests.parity.make import flow

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", ["ddpm", "elmes"])
def test_formulas_give_the_committed_arrays(name):
    fixture = Fixture(OWN / f"{name}.npz")
    inputs, outputs, config = getattr(flow, name)()
    assert fixture.config == config
    for found, made in ((fixture.inputs, inputs), (fixture.outputs, outputs)):
        assert list(found) == list(made)
        for key, value in made.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_they_are_small_enough_to_be_cloned():
    assert sum(path.stat().st_size for path in OWN.iterdir()) < 350_000
