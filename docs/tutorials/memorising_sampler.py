"""What a perfect fit of the flow matching loss returns: its training points, and nothing else.

python docs/tutorials/memorising_sampler.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from flown_jax import flow
from flown_jax.flow.memorising import memorising_velocity
from flown_jax.velocity import MLPVelocity


def circle(key: Array, size: int) -> Array:
    """Points (size, 2) near a circle: what is to be learned."""
    key_angle, key_noise = jax.random.split(key)
    angle = 2 * jnp.pi * jax.random.uniform(key_angle, (size,))
    ring = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    return 2 * ring + 0.1 * jax.random.normal(key_noise, (size, 2))


@partial(jax.jit, static_argnames=("steps", "width"))
def trained(data: Array, x0: Array, steps: int, width: int) -> Array:
    """Samples (B, 2) of a flow that learned from these data (N, 2) alone."""
    network = MLPVelocity(hidden_dims=(width,) * 3, time_scale=10.0)
    key_init, key_train = jax.random.split(jax.random.key(0))
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def velocity(params: Any, x: Array, t: Array, condition: Any = None) -> Array:
        return network.apply(params, x, t)

    def loss(params: Any, key: Array) -> Array:
        key_rows, key_loss = jax.random.split(key)
        x1 = data[jax.random.randint(key_rows, (256,), 0, len(data))]
        parts = {"path": flow.LinearPath(), "coupling": flow.independent}
        source = flow.get_source("gaussian")
        return flow.cfm_loss(partial(velocity, params), key_loss, x1, source=source, **parts)[0]

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    params = network.init(key_init, data[:1], 0.0)
    keys = jax.random.split(key_train, steps)
    (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), keys)
    return flow.sample(partial(velocity, params), x0, steps=100, backend="scan").x1


def main(
    steps: Sequence[int] = (300, 20_000),
    widths: Sequence[int] = (16, 256),
    samples: int = 500,
    folder: pathlib.Path | None = None,
) -> dict[str, float]:
    """Draw samples of each sampler; returns their median distance to the nearest training point."""
    key_data, key_fresh, key_x0 = jax.random.split(jax.random.key(0), 3)
    data, x0 = circle(key_data, 24), jax.random.normal(key_x0, (samples, 2))
    exact = flow.sample(memorising_velocity(data), x0, steps=100).x1
    made = {"exact": exact, "fresh points": circle(key_fresh, samples)}
    for number in steps:
        for width in widths:
            made[f"trained, {number} steps, {width} wide"] = trained(data, x0, number, width)
    figure = Figure(figsize=(3.1 * 3, 3.3 * -(-len(made) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = {}
    for index, (name, points) in enumerate(made.items()):
        nearest = cdist(np.asarray(points), np.asarray(data)).min(1)
        rows[name] = float(np.median(nearest))
        axis = figure.add_subplot(-(-len(made) // 3), 3, index + 1)
        axis.scatter(*np.asarray(points).T, s=4, color="#1a66b3", alpha=0.6)
        axis.scatter(*np.asarray(data).T, s=28, facecolor="none", edgecolor="#d9832b")
        axis.set_title(f"{name}\nmedian distance {rows[name]:.3f}", fontsize=9.5)
        axis.set(xticks=[], yticks=[], xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
        print(f"| {name} | {rows[name]:.3f} | {(nearest < 0.02).mean():.0%} |", flush=True)
    figure.savefig((folder or pathlib.Path(__file__).parent) / "memorising_sampler.png", dpi=100)
    return rows


if __name__ == "__main__":
    main()
