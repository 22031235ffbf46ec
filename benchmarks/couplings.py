"""Exact minibatch optimal transport of 256 and 1,024 pairs, against POT called directly.

The twin is what a user of POT writes: squared Euclidean costs and the network simplex between
uniform weights. Ours is `exact_ot` from device arrays to indices. Neither needs PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Case, first_call, main, race, report

SIZES, WIDTH = (256, 1024), 64
TOLERANCE = 1e-5  # of the total cost; POT's costs are float32 where the samples are


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each size."""
    cases = [measure(size, seconds) for size in SIZES]
    return report("couplings", cases, unit="ms/batch", seconds_per_unit=1e-3, width=WIDTH)


def measure(size: int, seconds: float, width: int = WIDTH) -> Case:
    """Times the coupling of a batch of standard normal samples.

    Args:
      size: pairs. seconds: of measuring. width: numbers in a sample.
    Raises:
      RuntimeError: the twin's plan has another total cost.
    """
    import jax
    import ot

    from flown_jax.flow import exact_ot

    x0, x1 = np.random.default_rng(size).standard_normal((2, size, width)).astype(np.float32)
    key, source, data = jax.random.key(0), jax.numpy.asarray(x0), jax.numpy.asarray(x1)
    couple = jax.jit(exact_ot)

    def ours(units: int) -> None:
        for _ in range(units):
            couple(key, source, data).block_until_ready()

    def solve() -> np.ndarray:
        return ot.emd(ot.unif(size), ot.unif(size), ot.dist(x1, x0))

    def twin(units: int) -> None:
        for _ in range(units):
            solve()

    compile_s = first_call(ours)
    totals = [
        float(((x0[i].astype(np.float64) - x1) ** 2).sum())
        for i in (np.asarray(couple(key, source, data)), solve().argmax(1))
    ]
    difference = abs(totals[0] / totals[1] - 1)
    if not difference < TOLERANCE:
        raise RuntimeError(f"the twin's total cost differs from ours by {difference:.1e}.")
    timings = race({"ours": ours, "pot": twin}, seconds)
    # The costs; pivots of the network simplex are not arithmetic.
    flops = 2.0 * size * size * width
    return Case(f"{size} pairs", timings.pop("ours"), timings, compile_s, flops)


if __name__ == "__main__":
    main(__doc__, run, seconds=15.0, torch=False)
