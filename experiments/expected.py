"""How long the main jobs take: what was measured on two CPU cores, and what that may mean here."""

from __future__ import annotations

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.training.parallel import describe_devices
from flown_jax.training.records import environment

# Seconds from nothing on two cores of an AMD EPYC, of two runs where there are two numbers; docs/
# and the configs say when and beside what.
SECONDS: dict[tuple[str, str], tuple[int, ...]] = {
    ("fewshot", "default"): (239, 422),
    ("fewshot", "tiny"): (60,),
    ("retrieval", "default"): (640,),
    ("retrieval", "real"): (72 * 60,),
    ("train_zoo", "digits"): (90,),
    ("train_zoo", "mnist_short"): (39 * 60,),
    ("train_zoo", "fashion_mnist_short"): (9 * 60,),
    ("train_zoo", "cifar10_short"): (37 * 60,),
    ("train_zoo", "stl10_short"): (15 * 60,),
    ("train_trajectory", "digits"): (130,),
    ("train_trajectory", "cnn_medium_cifar10"): (724,),
    ("train_trajectory", "resnet18_cifar10"): (812,),
}
# CPU seconds of one call of `_work` on one of those cores, told from the steps a second that
# `benchmarks.zoo_training` made there, and from both beside each other on another machine.
REFERENCE = 0.0005
_SIDE, _PRODUCTS, _DECILE = 96, 40, 0.1
_CALLS = 20  # at a time: the CPU time of a single one may be counted after its end


def sentence(module: str, variant: str | None) -> str:
    """One line before a command's work: the device, and the time that was measured.

    Args:
      module: the command, as behind `python -m`.
      variant: of its config; None where a user's own has none.
    """
    seconds = SECONDS.get((module.removeprefix("experiments."), str(variant)))
    if seconds is None:
        return f"on {device()}; this variant was not timed: --try_steps=2 tells what a step costs"
    return f"on {device()}; from nothing this took about {minutes(*seconds)} on two CPU cores"


def device() -> str:
    """The devices in words, such as "cpu (2 cores)" or "gpu (2 x NVIDIA H200)"."""
    found = describe_devices()
    kinds = found["devices"]
    if found["backend"] == "cpu":
        return f"cpu ({cores()} cores)"
    counted = [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
    return f"{found['backend']} ({', '.join(counted)})"


def cores() -> int:
    """Processor cores that this process may use."""
    return int(environment()["cpu_available"] or os.cpu_count() or 1)


def minutes(*seconds: float) -> str:
    """Times in words: "90 seconds", "11 minutes", "4 to 7 minutes"."""
    if max(seconds) <= 100:
        return f"{max(seconds):.0f} seconds"
    whole = list(dict.fromkeys(max(1, round(value / 60)) for value in seconds))
    return " to ".join(map(str, whole)) + (" minutes" if whole != [1] else " minute")


def factor(seconds: float = 1.0) -> float:
    """How many times as long work takes here as on the two cores of `SECONDS`: a rough guess.

    Small matrix products on one core, a fast one of many, by its CPU time: what else the machine
    does at the moment hardly counts, and neither do cores beyond two, which these jobs use little.

    Args:
      seconds: of measuring.
    """
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((_SIDE, _SIDE), np.float32) / _SIDE**0.5
    with jax.default_device(jax.devices("cpu")[0]):
        work, given = jax.jit(_work), jnp.asarray(matrix)
        jax.block_until_ready(work(given))
        times: list[float] = []
        until = time.monotonic() + seconds
        while not times or time.monotonic() < until:
            started = time.process_time()
            for _ in range(_CALLS):
                jax.block_until_ready(work(given))
            times.append((time.process_time() - started) / _CALLS)
    return float(np.quantile(times, _DECILE)) / REFERENCE * max(1.0, 2 / cores())


def _work(matrix: jax.Array) -> jax.Array:
    def product(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ matrix), None

    return jax.lax.scan(product, matrix, None, length=_PRODUCTS)[0]
