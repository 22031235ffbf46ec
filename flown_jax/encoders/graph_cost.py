"""What encoding a network as a graph costs, from the compiler, before anything is run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def encoding_cost(encoder: Any, networks: int = 1) -> dict[str, float]:
    """Of a forward and backward pass: `gib` of temporary memory and `gflop` on this device.

    The pass is compiled for shapes alone, in seconds to a minute; no array of its size is made.

    Args:
      encoder: a `GraphEncoder`.
      networks: in a batch.
    """
    w = jax.ShapeDtypeStruct((networks, encoder.topology.size), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), w)

    def loss(params: Any, constants: Any, w: Array) -> Array:
        return jnp.mean(encoder.apply({"params": params, "constants": constants}, w) ** 2)

    lowered = jax.jit(jax.value_and_grad(loss)).lower(
        variables["params"], variables["constants"], w
    )
    compiled = lowered.compile()
    memory: Any = compiled.memory_analysis()
    work = compiled.cost_analysis() or {}
    return {
        "gib": memory.temp_size_in_bytes / 2**30,
        "gflop": float(work.get("flops", float("nan"))) / 1e9,
    }
