"""Linear heads fitted a second, against a PyTorch loop over heads and PyTorch's batched form.

Five classes, one image a class, 100 full-batch AdamW steps (paper, sec. 3.2). "ratio" compares
with the loop; the batched form stands beside it in "ratios".
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.harness import Case, first_call, main, race, report

WAY, SHOT, WIDTHS = 5, 1, (64, 512)
STEPS, LEARNING_RATE, WEIGHT_DECAY = 100, 1e-3, 1e-2
OURS, LOOP, BATCHED = 1000, 16, 400  # heads in one unit of work
CHUNKS = (50, 200, 400)  # of the batched twin, the fastest counts
TOLERANCE = 1e-3  # Adam's ratio of moments magnifies rounding where the gradient is tiny


def run(seconds: float) -> dict[str, Any]:
    """The benchmark's result; `seconds` of measuring for each width."""
    cases = [measure(width, seconds) for width in WIDTHS]
    loops = ["loop", "loop fused"]
    batched = [f"batched {chunk}" for chunk in CHUNKS]
    return report(
        "heads",
        cases,
        unit="ms/head",
        seconds_per_unit=1e-3,
        twins=loops,
        groups={"loop": loops, "batched": batched},
        heads_per_second={case.name: round(1 / case.ours.median) for case in cases},
    )


def measure(
    width: int, seconds: float, ours: int = OURS, loop: int = LOOP, batched: int = BATCHED
) -> Case:
    """Times a head of ours and of the twins on the same features.

    Args:
      width: of the features. seconds: of measuring.
      ours, loop, batched: heads in one unit of work of each contestant.
    Raises:
      RuntimeError: the contestants' heads differ.
    """
    import jax
    import torch

    from benchmarks.torch_twins import fit_heads_batched, fit_heads_loop
    from benchmarks.unet_pair import torch_device, wait
    from flown_jax.models.heads import fit_adamw

    device = torch_device()
    rng = np.random.default_rng(width)
    features = rng.standard_normal((max(ours, batched, loop), WAY, SHOT, width), np.float32)
    rows = jax.numpy.asarray(features[:ours])
    tensor = torch.from_numpy(features).to(device)
    settings: dict[str, Any] = {
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
    }
    fit = jax.jit(functools.partial(fit_adamw, **settings))

    def our_work(units: int) -> None:
        for _ in range(units):
            fit(rows).block_until_ready()

    def work(function: Any, count: int, **options: Any) -> Any:
        def twin_work(units: int) -> None:
            for _ in range(units):
                function(tensor[:count], **settings, **options)
            wait(device)

        return twin_work

    compile_s = first_call(our_work)
    reference = np.asarray(fit(rows))[:loop, :, :-1]
    for theirs in (
        fit_heads_loop(tensor[:loop], **settings, fused=True),
        fit_heads_batched(tensor[:loop], **settings, chunk=CHUNKS[0]),
    ):
        difference = np.abs(reference - theirs.cpu().numpy()).max() / np.abs(reference).max()
        if not difference < TOLERANCE:
            raise RuntimeError(f"heads of the twins differ from ours by {difference:.1e}.")
    contestants = {
        "ours": our_work,
        "loop": work(fit_heads_loop, loop, fused=False),
        "loop fused": work(fit_heads_loop, loop, fused=True),
    } | {f"batched {c}": work(fit_heads_batched, batched, chunk=c) for c in CHUNKS}
    sizes = {name: loop if name.startswith("loop") else batched for name in contestants}
    sizes["ours"] = ours
    for contestant in contestants.values():
        contestant(1)
    timings = {name: t.per(sizes[name]) for name, t in race(contestants, seconds).items()}
    # Two products a step: the scores and the gradient.
    flops = STEPS * 2 * 2.0 * WAY * SHOT * WAY * width
    return Case(f"{WAY}x{width}", timings.pop("ours"), timings, compile_s, flops)


if __name__ == "__main__":
    main(__doc__, run, seconds=30.0)
