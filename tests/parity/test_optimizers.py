"""Twenty steps of Adam, AdamW and SGD with Nesterov's momentum, as PyTorch takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.training import optimizers
from tests.parity.fixtures import assert_close, load

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_trajectories(name):
    fixture = load("optimizers", "own")  # there is no published one
    c, inputs = fixture.config, fixture.inputs
    options = {"weight_decay": c["weight_decay"], "steps": c["steps"], "schedule": "cosine"}
    if name == "sgd":
        options |= {"momentum": c["momentum"], "nesterov": True}
    optimizer = getattr(optimizers, name)(c["lr"], **options)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(inputs["h"] * w + inputs["c"], state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = jnp.asarray(inputs["start"])
    _, states = jax.lax.scan(step, (start, optimizer.init(start)), length=c["steps"])
    assert_close(states, fixture.outputs[name], 1e-5, name)


def test_the_cosine_schedule():
    fixture = load("optimizers", "own")
    c = fixture.config
    rate = optimizers.rate(c["lr"], c["steps"], "cosine")
    found = [float(rate(i)) for i in range(c["steps"])]
    np.testing.assert_allclose(found, fixture.outputs["rates"], atol=1e-7 * c["lr"], rtol=1e-5)
