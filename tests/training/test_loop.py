"""The loop: restarts, stops, validation, and no waiting in between."""

from __future__ import annotations

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.training import Checkpoints, Records, fit
from flown_jax.training.loop import Diverged
from flown_jax.training.records import read_metrics
from tests.training import toy

pytestmark = pytest.mark.fast

STEP = toy.step()


class Killed(Exception):
    """Stands for whatever ends a run."""


def dies_at(step):
    def batch_at(index):
        if index == step:
            raise Killed
        return toy.batch_at(index)

    return batch_at


def run(folder, batch_at=toy.batch_at, step=STEP, **options):
    settings = {
        "steps": toy.STEPS,
        "name": "toy",
        "checkpoints": Checkpoints(folder / "checkpoints"),
        "save_every": 3,
        "log_every": 2,
        **options,
    }
    return fit(toy.initial(), step, batch_at, **settings)


def score(state):
    """Best at step 5, whatever is trained."""
    return -abs(int(state.step) - 5.0)


@pytest.mark.parametrize("options", [{}, {"validate": score, "validate_every": 1}])
def test_restart_equals_no_restart_bit_for_bit(tmp_path, options):
    whole = run(tmp_path / "whole", **options)
    for step in (1, 4, 11):
        with pytest.raises(Killed):
            run(tmp_path / "parts", dies_at(step), **options)
    resumed = run(tmp_path / "parts", **options)
    toy.assert_equal(resumed, whole)
    toy.assert_equal(run(tmp_path / "parts", dies_at(0), **options), whole)
    assert Checkpoints(tmp_path / "parts" / "checkpoints").steps() == [9, 12]


def test_metrics_are_written_once_and_are_means(tmp_path):
    records = Records(tmp_path, stream=(stream := io.StringIO()))
    with pytest.raises(Killed):
        run(tmp_path, dies_at(9), records=records, save_every=4)
    run(tmp_path, records=records, save_every=4)
    assert [r["step"] for r in read_metrics(tmp_path)] == [2, 4, 6, 8, 10, 12]
    assert {"stage", "time", "loss", "error", "grad_norm"} <= set(read_metrics(tmp_path)[0])
    losses, state = [], STEP.place(toy.initial())
    for index in range(2):
        state, metrics = STEP(state, toy.batch_at(index))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(read_metrics(tmp_path)[0]["loss"], np.mean(losses), rtol=1e-6)
    assert "toy: step 12/12" in stream.getvalue()


def broken(index, at=7):
    batch = toy.batch_at(index)
    return batch if index != at else {**batch, "y": batch["y"] * np.nan}


@pytest.mark.parametrize("log_every", [1, 5, None])
def test_loss_that_is_not_finite_stops_and_the_last_good_checkpoint_stays(tmp_path, log_every):
    with pytest.raises(UserError) as caught:
        run(tmp_path, broken, log_every=log_every)
    assert str(caught.value) == (
        "toy stopped at step 8: the loss is nan; the checkpoint of step 6 is kept"
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    good = checkpoints.restore(checkpoints.latest(), {"state": toy.initial()})["state"]
    assert all(jnp.isfinite(leaf).all() for leaf in (good.params["out"], good.ema_params["out"]))
    toy.assert_equal(run(tmp_path), run(tmp_path / "whole"))


def test_a_run_that_diverges_keeps_its_best_state(tmp_path):
    with pytest.raises(Diverged) as caught:
        run(tmp_path, broken, validate=score, validate_every=1)
    five = fit(toy.initial(), STEP, toy.batch_at, steps=5, name="toy")
    toy.assert_equal(
        (caught.value.best.params, caught.value.best.ema_params), (five.params, five.ema_params)
    )
    with pytest.raises(Diverged) as early:
        run(tmp_path / "early", broken, validate=score, validate_every=9)
    assert early.value.best is None


def test_gradient_that_is_not_finite_stops_too():
    """The square root's slope at zero spoils the parameters under a finite loss."""

    def root(params, key, batch, extra):
        return jnp.sqrt(jnp.sum(jnp.abs(params["out"] * 0.0))), ({}, extra)

    with pytest.raises(UserError, match=r"step 1: the loss is 0\.0, gradient norm nan; nothing"):
        fit(toy.initial(), toy.step(root), toy.batch_at, steps=3, name="toy")


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    def overflow(state, batch):
        del batch
        params = {**state.params, "out": state.params["out"] * jnp.inf}
        return state.replace(params=params, step=state.step + 1), {"loss": jnp.zeros(())}

    with pytest.raises(UserError, match="step 3: the parameters are not finite; nothing was"):
        run(tmp_path, step=overflow)
    assert Checkpoints(tmp_path / "checkpoints").latest() is None


def test_validation_returns_the_best_of_the_run(tmp_path):
    best = run(tmp_path, validate=score, validate_every=1)
    five = fit(toy.initial(), STEP, toy.batch_at, steps=5, name="toy")
    toy.assert_equal((best.params, best.ema_params), (five.params, five.ema_params))
    assert int(best.step) == toy.STEPS
    never = run(tmp_path / "never", validate=lambda state: float("nan"), validate_every=4)
    toy.assert_equal(never, run(tmp_path / "plain"))


def test_a_plain_function_is_a_step_and_the_initial_state_stays_valid():
    state = toy.initial()

    def plain(state, batch):
        return state.replace(step=state.step + 1), {"loss": batch["x"].sum()}

    assert int(fit(state, plain, toy.batch_at, steps=4, name="toy").step) == 4
    fit(state, STEP, toy.batch_at, steps=2, name="toy")
    toy.assert_equal(state, toy.initial())


def test_steps_are_dispatched_without_looking_at_their_metrics():
    """No metric is read before the end of a block."""
    asked = []

    class Lazy:
        def __init__(self, index):
            self.index = index

        def __array__(self, dtype=None, copy=None):
            asked.append(self.index)
            return np.zeros((), dtype)

    dispatched = []

    def step(state, batch):
        dispatched.append(batch)
        assert len(asked) == 100 * ((len(dispatched) - 1) // 100)
        return state.replace(step=state.step + 1), {"loss": Lazy(batch)}

    fit(toy.initial(), step, lambda index: index, steps=250, name="toy")
    assert sorted(set(asked)) == list(range(250))


def test_more_steps_behind_than_asked_for(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="toy has 12 steps behind it, more than the 5 asked for"):
        run(tmp_path, steps=5)


def test_records_are_json(tmp_path):
    run(tmp_path, records=Records(tmp_path, stream=io.StringIO()), validate=score)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["validation"] == -7.0
