"""BatchNorm's running statistics, estimated once more for generated networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.models import layout
from flown_jax.weights.spec import WeightSpec

_VECTORS = 20  # at a time


def reestimated(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    host: Mapping[str, Any] | None = None,
    images_at_a_time: int = 100,
) -> tuple[WeightSpec, np.ndarray] | None:
    """Running statistics (S, B) of each vector, and their spec; None of a network without any.

    What PyTorch has after one pass in training mode with momentum=None, a cumulative average: means
    over batches of the batch's mean and unbiased variance, n / (n - 1), of every BatchNorm of the
    network, also of those before a part. In every batch, a later BatchNorm sees what earlier ones
    have normalised by the batch. Batches are of one size, in the images' order; images that do not
    fill the last one are left out. Random augmentation there is none.

    Args:
      spec: of the vectors, which have parameters alone; of a registered network. weights: (S, D).
      images: training images, uint8 (n, H, W, C); fewer than a batch are one batch.
      prepare: images of a block -> the network's input, float32.
      host: variables around a part; None where the vectors are all.
      images_at_a_time: of a batch.
    Returns:
      The spec is of the collection `batch_stats`, in PyTorch's order.
    """
    module = spec.module()
    if not any(path.startswith("batch_stats/") for path in module.state_dict_names().values()):
        return None
    size = min(images_at_a_time, len(images))
    shapes = jax.eval_shape(module.init, jax.random.key(0), prepare(images[:1]))
    statistics = WeightSpec.from_module(module, shapes, collections=("batch_stats",))
    host = jax.device_put({"params": host["params"]} if host is not None else None)
    sums = np.zeros((len(weights), statistics.size))
    group, batches = min(_VECTORS, len(weights)), len(images) // size
    for batch in range(batches):
        inputs = prepare(images[batch * size : (batch + 1) * size])
        for first in range(0, len(weights), group):
            # One shape, one compilation: the last vectors are filled up with others.
            chosen = np.minimum(np.arange(first, first + group), len(weights) - 1)
            part = slice(first, min(first + group, len(weights)))
            found = _statistics(spec, statistics, host, weights[chosen], inputs)
            sums[part] += np.asarray(found)[: part.stop - first]
    return statistics, (sums / batches).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _statistics(
    spec: WeightSpec, statistics: WeightSpec, host: Any, weights: jax.Array, images: jax.Array
) -> jax.Array:
    """Of one batch, (K, B)."""
    module = spec.module()

    def one(vector: jax.Array) -> jax.Array:
        found: dict[str, jax.Array] = {}

        def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
                x = args[0].astype(jnp.float32).reshape(-1, args[0].shape[-1])
                path = "/".join(("batch_stats", *context.module.path))
                found[f"{path}/mean"], found[f"{path}/var"] = x.mean(0), x.var(0, ddof=1)
            return call(*args, **kwargs)

        with nn.intercept_methods(keep):
            module.apply(spec.unflatten(vector, host), images, train=True, mutable=["batch_stats"])
        return statistics.flatten(layout.nested(found))

    return jax.vmap(one)(weights) if spec.partial else jax.lax.map(one, weights)
