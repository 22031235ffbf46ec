"""Parity fixtures: arrays that other code than this library's has computed.

`own/` has small ones that are made from published formulas and descriptions (`make/` says how), so
that every parity test runs in any clone. Those computed by the original PyTorch code are larger and
lie elsewhere, in FLOWN_PARITY_DIR (default `../shared/parity`); tests on them are skipped where it
is absent. Sizes come from each fixture's own configuration.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN = pathlib.Path(__file__).resolve().parent / "own"
SOURCES = ("own", "published")


class Fixture:
    """One .npz: `param(prefix)`, `inputs[name]`, `outputs[name]`, `config`."""

    def __init__(self, path: pathlib.Path):
        with np.load(path) as data:
            arrays = {k: data[k] for k in data.files}
        if "meta" in arrays:  # one of our own
            meta = json.loads(str(arrays.pop("meta")))
            arrays = _unpacked(arrays, meta["layout"])
            self.config: dict[str, Any] = meta["config"]
            self.params = parameters(meta["shapes"], meta["seed"]) | _strip(arrays, "param:")
        else:
            self.config = json.loads(str(arrays.pop("meta:config")))
            self.params = _strip(arrays, "param:")
        self.inputs = _strip(arrays, "in:")
        self.outputs = _strip(arrays, "out:")


def load(name: str, source: str) -> Fixture:
    """The fixture `name`.npz of a source ("own" or "published"); skips where it is absent."""
    if source == "own":
        return Fixture(OWN / f"{name}.npz")
    path = pathlib.Path(os.environ.get("FLOWN_PARITY_DIR", ROOT / "../shared/parity"))
    if not (path / f"{name}.npz").exists():
        pytest.skip(f"no parity fixture {name}.npz: set FLOWN_PARITY_DIR to the fixtures' folder")
    return Fixture(path / f"{name}.npz")


def parameters(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Values of a state dict: the same for the same shapes and seed, on any machine.

    Kernels keep the size of what they are applied to; norms are about 1, variances positive.
    """
    rng, found = np.random.RandomState(seed), {}  # its stream is frozen
    for name, shape in shapes.items():
        value = rng.standard_normal(shape)
        if name.endswith("running_var"):
            value = 1 + 0.5 * np.tanh(value)
        elif name.endswith("weight") and len(shape) == 1:
            value = 1 + 0.2 * value
        elif len(shape) == 1:
            value = 0.2 * value
        else:
            value /= np.sqrt(np.prod(shape[1:]))
        found[name] = value.astype(np.float32)
    return found


def assert_close(actual: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """max|actual - expected| / max|expected| is at most `tolerance`, and the shapes agree."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    scale = max(float(np.max(np.abs(expected))), 1e-30)
    error = float(np.max(np.abs(actual.astype(np.float64) - expected))) / scale
    assert error <= tolerance, f"{what}: relative error {error:.2e} above {tolerance:.0e}"


def _unpacked(flat: dict[str, np.ndarray], layout: list[Any]) -> dict[str, np.ndarray]:
    found, starts = {}, dict.fromkeys(flat, 0)
    for name, dtype, shape in layout:
        end = starts[dtype] + math.prod(shape)
        found[name] = flat[dtype][starts[dtype] : end].reshape(shape)
        starts[dtype] = end
    return found


def _strip(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
