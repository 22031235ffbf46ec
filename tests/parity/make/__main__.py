"""Computes the fixtures in `own/` from published formulas and descriptions.

    python -m tests.parity.make [NAME ...]

Needs PyTorch (extra `torch`) for networks, which are written here once more, in plain functions of
`torch.nn.functional` and in float64; formulas are numpy's. Nothing of `flown_jax` is used. The
tests that read the fixtures need neither. Parameters are drawn anew from a seed by whoever reads
(`fixtures.parameters`), so that files hold inputs and results only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from tests.parity.fixtures import OWN, parameters
from tests.parity.make import (
    base_models,
    blocks,
    encoders,
    flow,
    graph_encoders,
    optimizers,
    pdiff,
    pna,
    unets,
)

FORMULAS = {"cfm": flow.cfm, "ddpm": flow.ddpm, "elmes": flow.elmes}
NETWORKS = {
    **blocks.FIXTURES,
    **encoders.FIXTURES,
    **unets.FIXTURES,
    **base_models.FIXTURES,
    **optimizers.FIXTURES,
    **graph_encoders.FIXTURES,
    **pna.FIXTURES,
    **pdiff.FIXTURES,
}


def packed(
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    meta: dict[str, Any],
    fixed: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """One array for all of a type, as small arrays take more room for their names than values."""
    values: dict[str, list[np.ndarray]] = {}
    layout = []
    for prefix, arrays in (("param", fixed), ("in", inputs), ("out", outputs)):
        for name, value in arrays.items():
            value = np.asarray(value)
            layout.append([f"{prefix}:{name}", value.dtype.name, value.shape])
            values.setdefault(value.dtype.name, []).append(value.ravel())
    found = {name: np.concatenate(parts) for name, parts in values.items()}
    return found | {"meta": np.array(json.dumps(meta | {"layout": layout}))}


def main(names: list[str]) -> None:
    """Writes these fixtures, or all."""
    OWN.mkdir(exist_ok=True)
    for name in names or [*FORMULAS, *NETWORKS]:
        shapes: dict[str, list[int]] = {}
        fixed: dict[str, np.ndarray] = {}
        seed = 0
        if name in FORMULAS:
            inputs, outputs, config = FORMULAS[name]()
        else:
            case = NETWORKS[name]
            shapes, seed, fixed = case.shapes, case.seed, case.fixed
            inputs, outputs, config = case.make(parameters(shapes, seed) | fixed)
        meta = {"config": config, "seed": seed, "shapes": shapes}
        path = OWN / f"{name}.npz"
        np.savez_compressed(path, **packed(inputs, outputs, meta, fixed))
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
