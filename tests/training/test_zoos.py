"""A zoo from seeds: what is saved when, branches, restarts, losses that are not finite."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models.many import logits
from flown_jax.training import many, zoos
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.optimizers import sgd
from flown_jax.training.records import Records
from flown_jax.training.stages import StageContext
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights.spec import WeightSpec
from tests.training.test_many import CNN_TINY, IMAGES, LABELS, OPTIMIZER, initial

SPEC = WeightSpec.from_module(CNN_TINY, {"params": jax.eval_shape(initial, jax.random.key(0))})


def run(folder, plan, optimizer=OPTIMIZER):
    records = Records(folder)
    try:
        return train_zoo(
            StageContext("training", folder / "progress", records),
            plan,
            initialise=initial,
            flatten=lambda params: SPEC.flatten({"params": params}),
            logits=logits(CNN_TINY, "tiles"),
            optimizer=optimizer,
            images=IMAGES,
            labels=LABELS,
            batch=5,
        )
    finally:
        records.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), Plan((1, 2, 3), 3, (0, 2, 3)))


def test_the_saved_epochs_are_kept(whole):
    assert whole["weights"].shape == (3, 3, SPEC.size)
    for i, seed in enumerate((1, 2, 3)):
        first = initial(jax.random.key(seed))
        np.testing.assert_allclose(
            whole["weights"][0][i], SPEC.flatten({"params": first}), atol=1e-6
        )
    assert np.isnan(whole["train_accuracy"][0]).all()
    assert np.isfinite(whole["train_accuracy"][1:]).all()
    assert (whole["train_loss"][2] < whole["train_loss"][1]).all()


def test_a_run_that_is_killed_ends_where_a_whole_one_ends(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(zoos, "_SAVE_SECONDS", 0.0)  # a checkpoint after every call
    save, saves = Checkpoints.save, []

    def save_and_die(self, step, tree):
        save(self, step, tree)
        saves.append(step)
        if len(saves) in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    plan = Plan((1, 2, 3), 3, (0, 2, 3))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, plan)
    found = run(tmp_path, plan)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)


def test_branches_share_their_trunk_and_nothing_else(tmp_path, whole):
    found = run(tmp_path, Plan((5, 6), 3, (2, 3), trunk_epochs=2, trunk_seed=1))
    trunk, ends = found["weights"]
    np.testing.assert_array_equal(trunk[0], trunk[1])
    np.testing.assert_array_equal(trunk[0], whole["weights"][1][0])
    assert np.abs(ends[0] - ends[1]).max() > 0


def test_a_loss_that_is_not_finite_stops_with_the_seed(tmp_path):
    optimizer = sgd(1e38, momentum=0.0, nesterov=False, weight_decay=0.0, steps=1)
    with pytest.raises(UserError, match="network with seed 4 is not finite at step"):
        run(tmp_path, Plan((4,), 3, (3,)), optimizer)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (((1, 1), 3, (3,)), "different whole numbers"),
        (((1,), 3, (4,)), r"between 0 and 3, the epochs that are trained; \[4\] does not"),
        (((1,), 3, ()), "save_epochs must lie"),
        (((1,), 3, (3,), 3), "trunk_epochs is 3; of 3 epochs, some must be left"),
    ],
)
def test_plans_that_cannot_be_are_refused(plan, sentence):
    with pytest.raises(UserError, match=sentence):
        Plan(*plan)


def test_groups_stay_in_the_cache():
    assert [many.group_size(batch) for batch in (5, 10, 64)] == [4, 2, 1]
