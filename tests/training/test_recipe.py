"""A run from its recipe: optimizers, averages, validation, resumed runs."""

from __future__ import annotations

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.errors import UserError
from flown_jax.training import Records, TrainState, averaged
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from tests.training import toy

pytestmark = pytest.mark.fast

RECIPE = Recipe(
    steps=6, batch=8, learning_rate=0.05, warmup=2, clip=1.0, ema_decay=0.9, save_every=2
)


@pytest.fixture
def context(tmp_path):
    with_records = Records(tmp_path)
    yield StageContext("toy", tmp_path / "progress", with_records)
    with_records.close()


def run(context, recipe=RECIPE, loss=toy.loss_fn, batch_at=toy.batch_at, **options) -> TrainState:
    start = toy.initial(ema=False)
    return train(
        context, recipe, start.params, loss, batch_at, seed=3, extra=start.extra, **options
    )


def test_a_run_takes_its_steps_and_keeps_an_average(context):
    state = run(context)
    assert int(state.step) == 6 and int(state.extra["count"]) == 6
    assert jax.tree.structure(averaged(state)) == jax.tree.structure(state.params)
    assert jnp.abs(averaged(state)["out"] - state.params["out"]).max() > 0


def test_without_a_decay_there_is_no_average(context):
    state = run(context, dataclasses.replace(RECIPE, ema_decay=None))
    assert state.ema_params is None
    toy.assert_equal(averaged(state), state.params)


class Killed(Exception):
    """Stands for whatever ends a run."""


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path):
    def dying(step):
        if step == 5:
            raise Killed
        return toy.batch_at(step)

    ends = []
    for name, batches in (("whole", [toy.batch_at]), ("broken", [dying, toy.batch_at])):
        records = Records(tmp_path / name)
        for batch_at in batches:
            seen: list[int] = []

            def spied(step, batch_at=batch_at, seen=seen):
                seen.append(step)
                return batch_at(step)

            with contextlib.suppress(Killed):
                ends.append(run(StageContext("toy", tmp_path / name, records), batch_at=spied))
        records.close()
    toy.assert_equal(*ends)
    assert seen == [4, 5]  # from the checkpoint at step 4 on


def test_two_runs_of_a_stage_do_not_share_checkpoints(context):
    first = run(context, name="first")
    second = run(context, dataclasses.replace(RECIPE, steps=3), name="second")
    assert (int(first.step), int(second.step)) == (6, 3)


def test_the_best_validated_state_is_returned(context):
    scores = iter([0.3, 0.9, 0.1])
    every = dataclasses.replace(RECIPE, validate_every=2)
    seen = []

    def validate(state):
        seen.append(np.asarray(state.params["out"]))
        return next(scores)

    state = run(context, every, validate=validate)
    assert len(seen) == 3
    np.testing.assert_array_equal(state.params["out"], seen[1])


def test_a_validation_that_the_recipe_does_not_want_is_not_run(context):
    def never(state):
        raise AssertionError

    run(context, validate=never)


def test_sgd_with_nesterov_momentum_is_optaxs():
    recipe = Recipe(
        steps=10,
        batch=1,
        learning_rate=0.1,
        schedule="constant",
        optimizer="sgd",
        momentum=0.8,
        nesterov=True,
    )
    ours, theirs = recipe.chain(), optax.sgd(0.1, momentum=0.8, nesterov=True)
    a = b = jnp.asarray([1.0, -2.0])
    state_a, state_b = ours.init(a), theirs.init(b)
    for _ in range(3):
        updates, state_a = ours.update(2 * a, state_a, a)
        a = optax.apply_updates(a, updates)
        updates, state_b = theirs.update(2 * b, state_b, b)
        b = optax.apply_updates(b, updates)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match="optimizer is 'lion'; it must be 'adamw', 'adam' or 'sgd'"):
        dataclasses.replace(RECIPE, optimizer="lion").chain()
