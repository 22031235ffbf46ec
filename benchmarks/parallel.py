"""A training step mapped over devices, against as many steps of one device with the same part each.

The step of `flow_step` at a small width. On processors the devices are fake ones that share the
cores, so that n devices have n times the work of one: the twin is n steps of one device, and what
is lost is the price of mapping and of the mean over devices. On accelerators each device works for
itself, and the twin is one step of one device: weak scaling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Case, Timing, first_call, main, race, report

COUNTS, PART, WIDTH = (2, 4, 8), 16, 32  # devices, examples on each, model channels
_SIZES: dict[str, Any] = {"channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 8}


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each number of devices."""
    import jax

    jax.config.update("jax_num_cpu_devices", max(COUNTS))
    present = jax.local_device_count()
    cases = [measure(count, seconds) for count in COUNTS if count <= present]
    return report("parallel", cases, unit="ms/step", seconds_per_unit=1e-3, part=PART)


def measure(count: int, seconds: float, part: int = PART, width: int = WIDTH, **sizes: Any) -> Case:
    """Times a step of `count` devices with `part` examples each, and one device with as many.

    Args:
      seconds: of measuring. width, sizes: of the UNet.
    """
    import jax

    from flown_jax.flow import LinearPath, cfm_loss, get_source, independent
    from flown_jax.training.optimizers import adamw
    from flown_jax.training.parallel import compile_step, on_cpu
    from flown_jax.training.state import TrainState
    from flown_jax.velocity import UNet

    module = UNet(model_channels=width, out_channels=4, **{**_SIZES, **sizes})
    x1 = np.random.default_rng(0).standard_normal((count * part, 8, 8, 4)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0), x1[:1], np.zeros(1, np.float32))["params"]
    source, path = get_source("gaussian"), LinearPath()

    def loss(params: Any, key: Any, latents: Any, extra: Any) -> Any:
        def velocity(x: Any, t: Any, condition: Any) -> Any:
            return module.apply({"params": params}, x, t)

        value, _ = cfm_loss(velocity, key, latents, path=path, coupling=independent, source=source)
        return value, ({}, extra)

    optimizer = adamw(2e-4, weight_decay=2e-6, steps=1000)

    def work_of(devices: int) -> Any:
        step = compile_step(loss, optimizer, seed=0, devices=devices)
        state = step.place(TrainState.create(params, optimizer))
        latents = x1[: devices * part]

        def work(units: int) -> None:
            nonlocal state
            for _ in range(units):
                state, metrics = step(state, latents)
            jax.block_until_ready(metrics)

        return work

    ours, one = work_of(count), work_of(1)
    compile_s = first_call(ours)
    one(2)
    timings = race({"ours": ours, "one": one}, seconds)
    steps = count if on_cpu() else 1
    alone = timings["one"]
    twin = Timing(steps * alone.median, steps * alone.low, steps * alone.high, alone.rounds)
    lost = timings["ours"].median - twin.median
    extra = {"devices": count, "lost_ms": round(1e3 * lost, 3), "twin_steps": steps}
    return Case(f"{count} devices", timings["ours"], {"one device": twin}, compile_s, 0.0, extra)


if __name__ == "__main__":
    main(__doc__, run, seconds=6.0, torch=False)
