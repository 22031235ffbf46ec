"""One training step of the UNet velocity, against PyTorch with the same network and parameters.

Conditional flow matching loss (paper, eq. 1), gradient and AdamW update on a batch of 128 latents
of 8x8x4; levels (1, 2, 2), two blocks, attention in the middle only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Case, first_call, main, race, report

WIDTHS, BATCH = (32, 64), 128
LEARNING_RATE, WEIGHT_DECAY = 2e-4, 2e-6


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each width."""
    cases = [measure(width, seconds) for width in WIDTHS]
    return report("flow_step", cases, unit="ms/step", seconds_per_unit=1e-3, batch=BATCH)


def measure(width: int, seconds: float, batch: int = BATCH, **sizes: Any) -> Case:
    """Times a step of ours and of PyTorch in both memory layouts.

    Args:
      width: model channels. seconds: of measuring. batch: latents a step.
      sizes: further sizes of the UNet, see `unet_pair.build`.
    """
    import jax
    import torch
    import torch.nn.functional as F

    from benchmarks import unet_pair
    from flown_jax.flow import LinearPath, cfm_loss, get_source, independent
    from flown_jax.training.optimizers import adamw
    from flown_jax.training.parallel import compile_step
    from flown_jax.training.state import TrainState

    pair = unet_pair.build(width, **sizes)
    rng = np.random.default_rng(0)
    x1 = rng.standard_normal((batch, unet_pair.SIDE, unet_pair.SIDE, unet_pair.CHANNELS))
    x1 = x1.astype(np.float32)
    source, path = get_source("gaussian"), LinearPath()

    def loss(params: Any, key: Any, latents: Any, extra: Any) -> Any:
        def velocity(x: Any, t: Any, condition: Any) -> Any:
            return pair.module.apply({"params": params}, x, t, condition)

        value, _ = cfm_loss(velocity, key, latents, path=path, coupling=independent, source=source)
        return value, ({}, extra)

    optimizer = adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, steps=1000)
    step = compile_step(loss, optimizer, seed=0)
    state = step.place(TrainState.create(pair.variables["params"], optimizer))
    latents = jax.numpy.asarray(x1)

    def ours(units: int) -> None:
        nonlocal state
        for _ in range(units):
            state, metrics = step(state, latents)
        jax.block_until_ready(metrics)

    def twin_work(name: str) -> Any:
        twin, data = pair.twins[name], unet_pair.to_torch(x1, name, pair.device)
        update = torch.optim.AdamW(
            twin.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )

        def work(units: int) -> None:
            for _ in range(units):
                t = torch.rand(len(data), device=pair.device)
                x0 = torch.randn_like(data)
                at = t[:, None, None, None]
                update.zero_grad(set_to_none=True)
                F.mse_loss(twin((1 - at) * x0 + at * data, t), data - x0).backward()
                update.step()
            unet_pair.wait(pair.device)

        return work

    compile_s = first_call(ours)
    contestants = {"ours": ours} | {name: twin_work(name) for name in pair.twins}
    for work in contestants.values():
        work(2)
    timings = race(contestants, seconds)
    # Forward, and two products of the same size for the gradient of each layer.
    flops = 3 * 2 * pair.multiply_adds * batch
    extra = {"velocity_difference": pair.difference}
    return Case(f"mc {width}", timings.pop("ours"), timings, compile_s, flops, extra)


if __name__ == "__main__":
    main(__doc__, run, seconds=20.0)
