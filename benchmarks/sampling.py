"""Sampling with the UNet velocity, against a PyTorch loop with the same network and parameters.

Euler, 100 steps (paper, Table 6), 50 latents of 8x8x4 from source to data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Case, first_call, main, race, report

WIDTHS, BATCH, STEPS = (32, 64), 50, 100
TOLERANCE = 1e-3  # of the end points, after 100 steps of float32


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each width."""
    cases = [measure(width, seconds) for width in WIDTHS]
    return report(
        "sampling", cases, unit="ms/solve", seconds_per_unit=1e-3, batch=BATCH, steps=STEPS
    )


def measure(
    width: int, seconds: float, batch: int = BATCH, steps: int = STEPS, **sizes: Any
) -> Case:
    """Times a solve of ours and of PyTorch in both memory layouts.

    Args:
      width: model channels. seconds: of measuring. batch: latents. steps: of Euler.
      sizes: further sizes of the UNet, see `unet_pair.build`.
    Raises:
      RuntimeError: the end points differ (on CPU; TF32 on a GPU may differ by more).
    """
    import jax
    import torch

    from benchmarks import unet_pair
    from flown_jax.flow import sample

    pair = unet_pair.build(width, **sizes)
    rng = np.random.default_rng(0)
    x0 = rng.standard_normal((batch, unet_pair.SIDE, unet_pair.SIDE, unet_pair.CHANNELS))
    x0 = x0.astype(np.float32)
    start = jax.numpy.asarray(x0)

    @jax.jit
    def solve(variables: Any, x: Any) -> Any:
        def velocity(x: Any, t: Any, condition: Any) -> Any:
            return pair.module.apply(variables, x, t, condition)

        return sample(velocity, x, solver="euler", steps=steps).x1

    @torch.inference_mode()
    def twin_solve(name: str, x: Any) -> Any:
        for i in range(steps):
            t = torch.full((batch,), i / steps, device=pair.device)
            x = x + pair.twins[name](x, t) / steps
        return x

    def ours(units: int) -> None:
        for _ in range(units):
            solve(pair.variables, start).block_until_ready()

    def twin_work(name: str) -> Any:
        data = unet_pair.to_torch(x0, name, pair.device)

        def work(units: int) -> None:
            for _ in range(units):
                twin_solve(name, data)
            unet_pair.wait(pair.device)

        return work

    compile_s = first_call(ours)
    end = np.asarray(solve(pair.variables, start))
    name = next(iter(pair.twins))
    theirs = twin_solve(name, unet_pair.to_torch(x0, name, pair.device)).cpu()
    difference = float(np.abs(end - theirs.permute(0, 2, 3, 1).numpy()).max() / np.abs(end).max())
    if jax.default_backend() == "cpu" and not difference < TOLERANCE:
        raise RuntimeError(f"end points differ from the twin's by {difference:.1e}.")
    contestants = {"ours": ours} | {name: twin_work(name) for name in pair.twins}
    timings = race(contestants, seconds)
    flops = 2 * pair.multiply_adds * batch * steps
    extra = {"velocity_difference": pair.difference, "end_difference": difference}
    return Case(f"mc {width}", timings.pop("ours"), timings, compile_s, flops, extra)


if __name__ == "__main__":
    main(__doc__, run, seconds=20.0)
