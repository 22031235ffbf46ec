"""The gradient through the solver, cut at t' (paper, section 3.1, A.4.4), and what diffrax costs.

Euler steps of a UNet on latents 8x8x4, whose ends an MLP decodes to the weights of a CNN-small. The
twin is a scan written by hand, with the same steps and one checkpoint each. The cut's time is
compared with t' F + (1 - t') G, forward F and full gradient G, and its memory of states, one
checkpoint a step, with (1 - t') of the full gradient's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Case, first_call, main, race, report

LATENT, WEIGHTS, BATCH, STEPS = (8, 8, 4), 2864, 8, 100
TIMES = (0.2, 0.4, 0.6, 0.8)
TOLERANCE = 1e-3  # of gradients, after 100 steps of float32
UNET: dict[str, Any] = {
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "num_heads": 2,
    "num_groups": 8,
    "use_scale_shift_norm": True,
    "time_scale": 1000.0,
}


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each group of contestants."""
    cases, rows = measure(seconds)
    return report(
        "solver_gradient",
        cases,
        unit="ms/solve",
        seconds_per_unit=1e-3,
        batch=BATCH,
        steps=STEPS,
        cut=rows,
    )


def measure(
    seconds: float,
    steps: int = STEPS,
    batch: int = BATCH,
    times: tuple[float, ...] = TIMES,
    kind: str = "unet",
    sizes: dict[str, Any] | None = None,
) -> tuple[list[Case], list[dict[str, float]]]:
    """Times solves and gradients of diffrax and of the scan, then the gradient cut at each t'.

    Args:
      seconds: of measuring, of each of the three. steps: of Euler. batch: latents.
      times: t' of the cut.
      kind, sizes: of the velocity; None for the UNet's.
    Returns:
      The cases `forward` and `gradient`, and for each t' the gradient's time and its memory of
      states, in shares of the full gradient's, and what the laws give.
    Raises:
      RuntimeError: the gradient of the scan is another one.
    """
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from flown_jax.encoders.codecs import make_codec
    from flown_jax.flow import sample
    from flown_jax.meta_model.sampling import as_velocity
    from flown_jax.velocity.make import make_velocity

    velocity = make_velocity(kind, LATENT, **(UNET if sizes is None else sizes))
    codec = make_codec("mlp", (WEIGHTS,), latent_shape=LATENT, hidden_dim=512)
    x0 = jax.random.normal(jax.random.key(0), (batch, *LATENT))
    params = velocity.init(jax.random.key(1), x0, jnp.zeros(()), None)
    # Zero at initialisation, as the network's last layer is, nothing would flow.
    params = jax.tree.map(
        lambda leaf: leaf + 0.02 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )
    decoder = codec.init(jax.random.key(2), x0, method="decode")

    def solve(params: Any, backend: str, t: float) -> Any:
        flow = as_velocity(velocity, params)
        return sample(flow, x0, steps=steps, gradient_from=t, backend=backend).x1

    def loss(params: Any, backend: str, t: float) -> Any:
        return jnp.mean(codec.apply(decoder, solve(params, backend, t), method="decode") ** 2)

    def compiled(function: Any) -> Any:
        return jax.jit(function).lower(params).compile()

    def work(program: Any) -> Any:
        def run(units: int) -> None:
            for _ in range(units):
                jax.block_until_ready(program(params))

        return run

    backends = ("diffrax", "scan")
    forward = {b: compiled(lambda p, b=b: loss(p, b, 0.0)) for b in backends}
    whole = {b: compiled(jax.grad(lambda p, b=b: loss(p, b, 0.0))) for b in backends}
    one, other = (np.asarray(ravel_pytree(whole[b](params))[0]) for b in backends)
    difference = float(np.abs(one - other).max() / np.abs(other).max())
    if not difference < TOLERANCE:
        raise RuntimeError(f"the twin's gradient differs from ours by {difference:.1e}.")
    cases = []
    for name, programs in (("forward", forward), ("gradient", whole)):
        contestants = {b: work(programs[b]) for b in backends}
        compile_s = first_call(contestants["diffrax"])
        timings = race(contestants, seconds)
        ours = timings.pop("diffrax")
        cases.append(Case(name, ours, timings, compile_s, 0.0, {"difference": difference}))

    cut = {t: compiled(jax.grad(lambda p, t=t: loss(p, "diffrax", t))) for t in times}
    programs = {"forward": forward["diffrax"], "full": whole["diffrax"]}
    programs |= {str(t): program for t, program in cut.items()}
    timings = race({name: work(program) for name, program in programs.items()}, seconds)
    share = timings["forward"].median / timings["full"].median
    memory = {t: _memory(program) for t, program in cut.items()}
    # A checkpoint a step grows with the steps; one step's own results are there in any case.
    full, kept = _memory(whole["diffrax"]), steps * x0.nbytes
    rows = [
        {
            "t": t,
            "time": round(timings[str(t)].median / timings["full"].median, 4),
            "time_law": round(t * share + 1 - t, 4),
            "memory": round(1 - (full - memory[t]) / kept, 4),
            "memory_law": round(1 - t, 4),
        }
        for t in times
    ]
    return cases, rows


def _memory(program: Any) -> float:
    """Bytes of a compiled program's intermediate results."""
    return float(program.memory_analysis().temp_size_in_bytes)


if __name__ == "__main__":
    main(__doc__, run, seconds=60.0, torch=False)
