"""Flows from eight Gaussians to two moons, by every path and coupling: one figure, one table.

python docs/tutorials/two_dimensional_flows.py           # the figure of the page
python docs/tutorials/two_dimensional_flows.py --short   # the same in seconds, and rough
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flown_jax import flow
from flown_jax.velocity import MLPVelocity

NETWORK = MLPVelocity(hidden_dims=(128, 128, 128), time_scale=10.0)
SIGMA = 1.0  # of the bridge
PATHS = {
    "straight": flow.LinearPath(),
    "variance preserving": flow.VariancePreservingPath(),
    "affine, t²": flow.AffinePath(flow.Polynomial(2)),
    "Schrödinger bridge": flow.SchrodingerBridgePath(SIGMA),
    "target": flow.TargetPath(),
}
COUPLINGS = {
    "independent": flow.independent,
    "exact transport": flow.exact_ot,
    "entropic transport": flow.get_coupling("entropic_ot", reg=2 * SIGMA**2),
}


class Flow(NamedTuple):
    """A trained one: its samples, what they went through, and what they are worth."""

    trajectory: np.ndarray  # (T, B, 2)
    distance: float  # to the moons, W2 of 100 Euler steps
    of_few: float  # the same of four Euler steps
    detour: float  # length of a path over the distance of its ends


def eight_gaussians(key: Array, shape: tuple[int, ...]) -> Array:
    """Points (B, 2) around eight centres on a circle."""
    key_centre, key_noise = jax.random.split(key)
    angle = jax.random.randint(key_centre, shape[:1], 0, 8) * (jnp.pi / 4)
    centres = 5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    return centres + 0.3 * jax.random.normal(key_noise, shape)


def moons(key: Array, size: int) -> Array:
    """Points (size, 2) on two half circles that reach into each other."""
    key_side, key_angle, key_noise = jax.random.split(key, 3)
    side = jax.random.bernoulli(key_side, shape=(size,))
    angle = jnp.pi * jax.random.uniform(key_angle, (size,))
    upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    lower = jnp.stack([1 - jnp.cos(angle), 0.5 - jnp.sin(angle)], -1)
    points = jnp.where(side[:, None], upper, lower)
    return 3 * (points + 0.05 * jax.random.normal(key_noise, (size, 2))) - jnp.array([1.5, 0.75])


def pairs(coupling: Callable, batches: int, batch: int) -> tuple[Array, Array]:
    """Sources and data (batches * batch, 2), coupled batch by batch.

    Drawn once for all paths, since entropic transport takes longer than a training step.
    """
    x0, x1 = [], []
    for key in jax.random.split(jax.random.key(0), batches):
        key_x0, key_x1, key_coupling = jax.random.split(key, 3)
        source, data = eight_gaussians(key_x0, (batch, 2)), moons(key_x1, batch)
        x0.append(source[coupling(key_coupling, source, data)])
        x1.append(data)
    return jnp.concatenate(x0), jnp.concatenate(x1)


@partial(jax.jit, static_argnames=("path", "steps"))
def train(path: flow.Path, x0: Array, x1: Array, steps: int, batch: int = 256) -> Any:
    """Parameters of a velocity that was trained on pairs x0, x1, both (N, 2)."""
    key_init, key_train = jax.random.split(jax.random.key(1))
    params = NETWORK.init(key_init, x1[:1], 0.0)
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    bridge = isinstance(path, flow.SchrodingerBridgePath)  # its velocity has no bound at the ends
    time = flow.uniform_time(0.02, 0.98) if bridge else flow.uniform_time()

    def loss(params: Any, key: Array) -> Array:
        key_rows, key_loss = jax.random.split(key)
        rows = jax.random.randint(key_rows, (batch,), 0, len(x1))
        # The pairs are coupled already. The target path knows no pairs: it draws its own noise.
        target = isinstance(path, flow.TargetPath)
        source = flow.get_source("gaussian") if target else lambda key, shape: x0[rows]
        parts = {"path": path, "coupling": flow.independent, "source": source, "time": time}
        return flow.cfm_loss(partial(velocity, params), key_loss, x1[rows], **parts)[0]

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(
        step, (params, adam.init(params)), jax.random.split(key_train, steps)
    )
    return params


def velocity(params: Any, x: Array, t: Array, condition: Any = None) -> Array:
    """The network's velocity of points x (B, 2)."""
    return NETWORK.apply(params, x, t)


@partial(jax.jit, static_argnames="steps")
def sampled(params: Any, x0: Array, steps: int) -> Array:
    """States (steps + 1, B, 2) of Euler's method."""
    return flow.sample(
        partial(velocity, params), x0, steps=steps, save_trajectory=True, backend="scan"
    ).trajectory


def measured(params: Any, x0: Array, target: Array) -> Flow:
    """What a trained velocity makes of x0 (B, 2), and how far that is from the target's points."""
    fine, few = (np.asarray(sampled(params, x0, steps)) for steps in (100, 4))
    length = np.linalg.norm(np.diff(fine, axis=0), axis=-1).sum(0)
    ends = np.linalg.norm(fine[-1] - fine[0], axis=-1)
    worth = (flow.wasserstein(states[-1], np.asarray(target)) for states in (fine, few))
    return Flow(fine, *worth, float(length.mean() / ends.mean()))


def draw(flows: dict[tuple[str, str], Flow | str], file: pathlib.Path) -> None:
    """A panel a path and coupling; where there is no flow, the reason."""
    figure = Figure(figsize=(2.9 * len(COUPLINGS), 2.75 * len(PATHS)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PATHS), len(COUPLINGS), squeeze=False)
    for (path, coupling), made in flows.items():
        row, column = list(PATHS).index(path), list(COUPLINGS).index(coupling)
        axis = axes[row, column]
        axis.set(xticks=[], yticks=[], xlim=(-6.8, 6.8), ylim=(-6.8, 6.8), aspect="equal")
        if row == 0:
            axis.set_title(coupling, fontsize=12)
        if column == 0:
            axis.set_ylabel(path, fontsize=12)
        if isinstance(made, str):
            axis.text(0, 0, made, ha="center", va="center", fontsize=10, color="#666666")
            continue
        x = made.trajectory
        axis.plot(x[:, :200, 0], x[:, :200, 1], color="#888888", lw=0.35, alpha=0.6)
        axis.scatter(*x[0].T, s=1.5, color="#d9832b", label="source")
        axis.scatter(*x[-1].T, s=1.5, color="#1a66b3", label="generated")
        axis.text(-6.5, -6.5, f"W2 {made.distance:.2f}, of 4 steps {made.of_few:.2f}", fontsize=9)
    figure.savefig(file, dpi=100)


def main(
    steps: int = 3000,
    batches: int = 100,
    samples: int = 1000,
    paths: Sequence[str] = tuple(PATHS),
    folder: pathlib.Path | None = None,
) -> dict[tuple[str, str], Flow | str]:
    """Train all flows, draw them, print the table; returns the flows, or why there is none."""
    flows: dict[tuple[str, str], Flow | str] = {}
    key_x0, key_x1 = jax.random.split(jax.random.key(2))
    target, size = moons(key_x1, samples), (samples, 2)
    floor = flow.wasserstein(np.asarray(moons(jax.random.key(3), samples)), np.asarray(target))
    print(f"W2 of two draws of {samples} points of the moons: {floor:.2f}")
    print("| coupling | path | W2, 100 steps | W2, 4 steps | detour |\n|---|---|---|---|---|")
    for name, coupling in COUPLINGS.items():
        x0, x1 = pairs(coupling, batches, 256)
        for path in paths:
            if path == "target" and name != "independent":
                flows[path, name] = "no pairs to choose:\nthis path has no source point"
                continue
            source = flow.get_source("gaussian") if path == "target" else eight_gaussians
            made = measured(train(PATHS[path], x0, x1, steps), source(key_x0, size), target)
            flows[path, name] = made
            worth = f"{made.distance:.2f} | {made.of_few:.2f} | {made.detour:.2f}"
            print(f"| {name} | {path} | {worth} |", flush=True)
    draw(flows, (folder or pathlib.Path(__file__).parent) / "two_dimensional_flows.png")
    return flows


if __name__ == "__main__":
    if "--short" in sys.argv:
        main(steps=30, batches=1, samples=50, folder=pathlib.Path("."))
    else:
        main()
