"""Paces of trainings: seconds of a step without compilation, from the records' own progress."""

from __future__ import annotations

import io
import json
import math
import time

import jax
import jax.numpy as jnp
import optax
import pytest

from flown_jax.training import fit, paces
from flown_jax.training.parallel import compile_step
from flown_jax.training.records import Records
from flown_jax.training.state import TrainState


@pytest.fixture
def records(tmp_path):
    found = Records(tmp_path, stream=io.StringIO())
    yield found
    found.close()


def test_a_training_tells_its_pace_to_whoever_measures(records):
    optimizer = optax.sgd(0.1)
    state = TrainState.create({"w": jnp.ones((3, 2))}, optimizer, ema=False)

    def loss(params, key, batch, extra):
        return jnp.sum(jnp.sin(params["w"]) * batch), ({}, extra)

    compiled = compile_step(loss, optimizer, seed=0, devices=1)

    def step(state, batch):
        time.sleep(0.02)
        return compiled(state, batch)

    step.place, step.collect = compiled.place, compiled.collect

    def train(name):
        # Another shape at the second step: compiled once more.
        batches = [jnp.ones(2), jnp.ones((3, 1)), jnp.ones(2), jnp.ones(2)]
        common = {"steps": 4, "name": name, "records": records, "log_every": 1}
        return fit(state, step, batches.__getitem__, batch=7, **common)

    train("unseen")
    jax.clear_caches()
    with paces.measured() as found:
        train("flow")
        with records.progress("evaluation", 3) as update:
            update(3)
    train("unseen")
    (pace,) = found
    assert (pace.name, pace.steps, pace.batch, pace.parameters) == ("flow", 4, 7, 6)
    assert 0.02 <= pace.step_seconds < 0.06
    assert pace.compile_seconds > 0.02
    assert 0.01 < pace.memory_gib < 1000 and pace.device_memory_gib is None


def test_one_step_alone_tells_its_own_seconds_and_none_is_no_number(records):
    told = []
    with paces.measured(lambda found: told.append(len(found))) as found:
        with records.progress("one", 11, 10, timed=True) as update:
            time.sleep(0.02)
            update(11)
        with records.progress("none", 10, 10, timed=True):
            pass
        with pytest.raises(ZeroDivisionError), records.progress("broken", 9, timed=True) as update:
            update(1)
            update(3)
            _ = 1 / 0
    assert told == [1, 2, 3]
    one, none, broken = found
    assert one.steps == 1 and 0.02 <= one.step_seconds < 0.5
    assert none.steps == 0 and math.isnan(none.step_seconds)
    assert broken.steps == 3
    assert json.loads(json.dumps(none.to_dict()))["step_seconds"] is None


def test_spans_of_compilation_that_lie_in_one_another_count_once(monkeypatch):
    spans = [(2.0, 3.0), (1.0, 4.0), (5.0, 7.0), (6.0, 8.0), (20.0, 30.0)]
    monkeypatch.setattr(paces._state, "spans", spans)
    assert paces.compiled(0.0, 10.0) == 6.0
    assert paces.compiled(2.5, 5.5) == 2.0
    assert paces.compiled(10.0, 15.0) == 0.0


def test_a_steps_memory_is_told_and_planning_changes_nothing(records):
    """Four floats an example go in, 40 come of them and are kept for the gradient."""
    optimizer = optax.adam(0.1)
    weights = {"w": jnp.full((4, 40), 0.1)}

    def loss(params, key, batch, extra):
        return jnp.mean(jnp.sin(jnp.sin(batch @ params["w"]))), ({}, extra)

    def train(size, name):
        step = compile_step(loss, optimizer, seed=0, devices=1)
        state = TrainState.create(weights, optimizer, ema=False)
        batches = [jnp.ones((size, 4)), jnp.ones((7, 4))]  # of two shapes in turn
        common = {"steps": 3, "name": name, "records": records, "batch": size}
        return fit(state, step, lambda i: batches[i % 2], **common)

    unseen = train(500, "unseen")
    with paces.measured() as found:
        seen = train(500, "small")
        train(1000, "large")
    assert (seen.params["w"] == unseen.params["w"]).all()
    small, large = (pace.footprint for pace in found)
    assert small.devices == 1 and small.parameter_bytes == 4 * 40 * 4
    assert 0 <= small.state_bytes - 3 * small.parameter_bytes < 100  # two moments and counters
    assert (small.batch_bytes, small.frozen_bytes) == (500 * 4 * 4, 0)
    kept = (large.work_bytes - small.work_bytes) / 500
    assert 40 * 4 <= kept <= 4 * 40 * 4
    assert found[0].to_dict()["footprint"]["work_bytes"] == small.work_bytes
