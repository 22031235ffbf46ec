"""A small regression that all training tests share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.training import TrainState, adamw, compile_step

STEPS = 12


def optimizer():
    return adamw(0.05, weight_decay=1e-3, steps=STEPS, schedule="cosine", warmup=3, clip=1.0)


def loss_fn(params, key, batch, extra):
    """Noisy regression: the noise makes restarts depend on the keys."""
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)
    return quiet_loss(params, None, {**batch, "x": batch["x"] + noise}, extra)


def quiet_loss(params, key, batch, extra):
    """The same without randomness; extra is a running mean of the inputs."""
    del key
    hidden = jnp.tanh(batch["x"] @ params["in"]["kernel"])
    error = hidden @ params["out"] - batch["y"]
    new = {"mean": 0.9 * extra["mean"] + 0.1 * batch["x"].mean(0), "count": extra["count"] + 1}
    return jnp.mean(error**2), ({"error": jnp.mean(jnp.abs(error))}, new)


def initial(ema=True, width=5):
    key_in, key_out = jax.random.split(jax.random.key(0))
    params = {
        "in": {"kernel": 0.3 * jax.random.normal(key_in, (3, width))},
        "out": 0.3 * jax.random.normal(key_out, (width,)),
    }
    extra = {"mean": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}
    return TrainState.create(params, optimizer(), ema=ema, extra=extra)


def batch_at(index):
    draw = np.random.default_rng((7, index))
    x = draw.normal(size=(8, 3)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(1))}


def step(loss=loss_fn, ema_decay=0.9, **options):
    options.setdefault("devices", 1)
    return compile_step(loss, optimizer(), seed=3, ema_decay=ema_decay, **options)


def assert_equal(a, b):
    """Bit for bit, structure included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
