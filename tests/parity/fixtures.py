"""Parity fixtures: arrays computed by the original PyTorch code.

The folder comes from FLOWN_PARITY_DIR (default `../shared/parity`); tests are skipped where it is
absent. Sizes come from each fixture's own configuration.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Fixture:
    """One .npz: `param(prefix)`, `inputs[name]`, `outputs[name]`, `config`."""

    def __init__(self, path: pathlib.Path):
        with np.load(path) as data:
            arrays = {k: data[k] for k in data.files}
        self.config: dict[str, Any] = json.loads(str(arrays.pop("meta:config")))
        self.params = _strip(arrays, "param:")
        self.inputs = _strip(arrays, "in:")
        self.outputs = _strip(arrays, "out:")


def load(name: str) -> Fixture:
    """The fixture `name`.npz; skips the test where the folder or file is absent."""
    folder = pathlib.Path(os.environ.get("FLOWN_PARITY_DIR", ROOT / "../shared/parity"))
    path = folder / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no parity fixture {name}.npz: set FLOWN_PARITY_DIR to the fixtures' folder")
    return Fixture(path)


def assert_close(actual: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """max|actual - expected| / max|expected| is at most `tolerance`, and the shapes agree."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    scale = max(float(np.max(np.abs(expected))), 1e-30)
    error = float(np.max(np.abs(actual.astype(np.float64) - expected))) / scale
    assert error <= tolerance, f"{what}: relative error {error:.2e} above {tolerance:.0e}"


def _strip(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
