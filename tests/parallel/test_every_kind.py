"""Steps of each kind come out on several devices and processes as on one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.every_kind import KINDS
from tests.parallel.several import address, ended, start

MODULE = ["-m", "tests.parallel.every_kind"]
# Parameters that the loss does not depend on, as the biases of attention's keys, have gradients of
# rounding alone, which Adam brings to the length of others: there the losses are compared.
LOSS_ALONE = {"caml-adamw"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What came out on 1 device, on 8, and on 2 processes with 2 each."""
    folder, where = tmp_path_factory.mktemp("kinds"), address()
    running = [start([*MODULE, str(folder / str(n))], n) for n in (1, 8)]
    for index in range(2):
        running.append(start([*MODULE, str(folder / "2x2"), where, "2", str(index)], 2))
    for status, _, told in ended(running):
        assert status == 0, told[-20:]
    return {name: np.load(folder / name / "found.npz") for name in ("1", "8", "2x2")}


def test_devices_are_as_many_as_meant(found):
    assert {name: int(of["devices"]) for name, of in found.items()} == {"1": 1, "8": 8, "2x2": 4}


@pytest.mark.parametrize("layout", ["8", "2x2"])
@pytest.mark.parametrize("kind", [f"{train.__name__}-{optimizer}" for train, optimizer in KINDS])
def test_losses_and_parameters_after_twenty_steps(found, layout, kind):
    """Float32 sums in another order; 2e-6 of the largest number."""
    for what in ("losses", "parameters"):
        if what == "parameters" and kind in LOSS_ALONE:
            continue
        one, other = (found[name][f"{kind} {what}"] for name in ("1", layout))
        assert len(one) >= 20
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-6 * np.abs(one).max())


def test_what_is_no_mean_over_its_batch_is_not_shared(found):
    for layout in ("8", "2x2"):
        for what in ("losses", "parameters"):
            one, other = (found[name][f"zoo_codec-adamw {what}"] for name in ("1", layout))
            np.testing.assert_array_equal(one, other)
