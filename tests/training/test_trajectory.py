"""A trajectory: what trains on and what does not, restarts, running statistics, broken runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import layout
from flown_jax.models.cnn import CNN
from flown_jax.training import trajectory
from flown_jax.training.augmentation import augmentation
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.recipe import Recipe
from flown_jax.training.records import Records, read_metrics
from flown_jax.training.stages import StageContext
from flown_jax.training.trajectory import Examples, train_base, train_states
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import initial_variables, quick_jit

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 3, 44)
IMAGES = (20 * DRAW.random((44, 6, 6, 1)) + 80 * LABELS[:, None, None, None]).astype(np.uint8)


def prepare(images):
    return images.astype(np.float32) / 255


EXAMPLES = Examples(IMAGES, LABELS, prepare, augmentation("crop_flip"))
PLAIN = Examples(IMAGES, LABELS, prepare, augmentation("none"))
BASE = Recipe(steps=12, batch=10, learning_rate=0.1, schedule="constant", optimizer="sgd")
STATES = Recipe(steps=12, batch=10, learning_rate=0.02, schedule="cosine", optimizer="adamw")


class Small(nn.Module):
    """A linear layer, a BatchNorm and another linear layer."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(4, name="first")(images.reshape(len(images), -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(3, name="last")(nn.relu(x))


MODULE = Small()
START = initial_variables(MODULE, jnp.zeros((1, 6, 6, 1)))
WHOLE = WeightSpec.from_module(MODULE, START)
PART = WHOLE.subset(lambda name: name.startswith("norm"))
STATISTICS = WeightSpec.from_module(MODULE, START, collections=("batch_stats",))


class Run:
    """A context for a stage that is used in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.records = folder, Records(folder)

    def __enter__(self):
        return StageContext("states", self.folder / "progress", self.records)

    def __exit__(self, *error):
        self.records.close()


def states(folder, spec=PART, recipe=STATES, module=MODULE, host=START, seed=1, **options):
    options.setdefault("every", 3)
    with Run(folder) as context:
        return train_states(context, recipe, module, spec, host, EXAMPLES, seed=seed, **options)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compilation takes most of a tiny run; nothing here needs optimised programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        yield


@pytest.fixture(scope="module")
def part(quick, tmp_path_factory):
    return states(tmp_path_factory.mktemp("part"))


def test_every_state_of_the_part_is_kept_and_differs(part, tmp_path):
    assert part["weights"].shape == (4, 8) and set(part) == {
        "weights",
        "train_accuracy",
        "train_loss",
    }
    rows = np.stack([np.asarray(PART.flatten(START)), *part["weights"]])
    assert (np.abs(np.diff(rows, axis=0)).max(axis=1) > 0).all()
    assert part["train_loss"][-1] < part["train_loss"][0]
    # The states of a longer interval are among those of a shorter one.
    wide = states(tmp_path, every=6)
    np.testing.assert_array_equal(wide["weights"], part["weights"][1::2])
    np.testing.assert_allclose(
        wide["train_loss"], part["train_loss"].reshape(2, 2).mean(1), rtol=1e-6
    )
    logged = read_metrics(tmp_path)
    assert [line["step"] for line in logged] == [6, 12]


def test_the_optimizer_has_the_part_alone(tmp_path, monkeypatch):
    seen = []
    take = trajectory._Snapshots.take

    def spied(self, row, state, means):
        seen.append(state)
        take(self, row, state, means)

    monkeypatch.setattr(trajectory._Snapshots, "take", spied)
    found = states(tmp_path)
    paths = ["norm/bias", "norm/scale"]
    for state, vector in zip(seen, found["weights"], strict=True):
        assert sorted(path for path, _ in layout.leaves(state.params)) == paths
        np.testing.assert_array_equal(PART.flatten({"params": state.params}), vector)


def test_a_run_that_is_killed_ends_where_a_whole_one_ends(tmp_path, monkeypatch, part):
    monkeypatch.setattr(trajectory, "_SAVE_SECONDS", 0.0)  # a checkpoint after every block
    monkeypatch.setattr(trajectory, "_BLOCK", 2)  # some of them within an interval
    save, saves = Checkpoints.save, []

    def save_and_die(self, step, tree):
        save(self, step, tree)
        saves.append(step)
        if len(saves) in (1, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            states(tmp_path)
    found = states(tmp_path)
    assert saves == [2, 3, 5, 6, 8, 9, 11, 12]
    for name, values in part.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_whole_network_has_the_running_statistics_of_its_moment(tmp_path):
    found = states(tmp_path, WHOLE, buffers_spec=STATISTICS)
    assert found["weights"].shape == (4, WHOLE.size) and found["buffers"].shape == (4, 8)
    rows = np.stack([np.asarray(STATISTICS.flatten(START)), *found["buffers"]])
    assert (np.abs(np.diff(rows, axis=0)).max(axis=1) > 0).all()


def test_the_base_learns_and_its_statistics_move(tmp_path):
    with Run(tmp_path) as context:
        trained = train_base(context, BASE, MODULE, START, PLAIN, seed=1)
    logits = quick_jit(MODULE.apply)(trained, prepare(IMAGES))
    assert (np.asarray(logits).argmax(-1) == LABELS).mean() > 0.8
    assert np.abs(trained["batch_stats"]["norm"]["mean"]).max() > 0
    with Run(tmp_path / "none") as context:
        none = Recipe(steps=0, batch=10, learning_rate=0.1)
        untouched = train_base(context, none, MODULE, START, PLAIN, seed=1)
    assert untouched["params"] is START["params"]


def test_a_cnn_in_tiles_takes_the_steps_of_its_module(tmp_path):
    """The fast form of the network and the plain one, over a few steps of SGD."""
    cnn = CNN(channels=(2,), kernels=(3,), pools=(True,), hidden=(), num_classes=3)
    start = initial_variables(cnn, jnp.zeros((1, 6, 6, 1)))
    spec = WeightSpec.from_module(cnn, start)
    recipe = Recipe(steps=3, batch=10, learning_rate=0.1, schedule="constant", optimizer="sgd")

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return CNN(**{f: getattr(cnn, f) for f in FIELDS}, name="cnn")(images)

    FIELDS = ("channels", "kernels", "pools", "hidden", "num_classes")
    wrapped = {"params": {"cnn": start["params"]}}
    plain = WeightSpec.from_module(Plain(), wrapped)
    fast = states(tmp_path / "a", spec, recipe, cnn, start)["weights"][0]
    slow = states(tmp_path / "b", plain, recipe, Plain(), wrapped)["weights"][0]
    assert np.abs(fast - np.asarray(spec.flatten(start))).max() > 1e-3
    # float32, sums in another order.
    np.testing.assert_allclose(np.sort(fast), np.sort(slow), atol=1e-6)


def test_batches_are_epochs_without_repeats():
    batch_at = PLAIN.batches(3, 10)
    assert PLAIN.steps_per_epoch(10) == 4
    order = [batch_at(i)["images"] for i in range(8)]
    flat = np.concatenate(order[:4]).reshape(40, -1)
    assert (
        len(np.unique(flat, axis=0)) == len(np.unique(prepare(IMAGES).reshape(44, -1), axis=0)) - 4
    )
    np.testing.assert_array_equal(batch_at(1)["images"], order[1])  # after another epoch
    np.testing.assert_array_equal(PLAIN.batches(3, 10)(6)["images"], order[6])
    assert (order[0] != order[4]).any()
    with pytest.raises(UserError, match="a batch of 45 cannot be drawn from 44 images"):
        PLAIN.batches(3, 45)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    wild = Recipe(
        steps=6, batch=10, learning_rate=1e38, schedule="constant", optimizer="sgd", momentum=0.0
    )
    with pytest.raises(UserError, match="states stopped at step [1-3]: the loss is nan; a smaller"):
        states(tmp_path, WHOLE, wild)


def test_steps_that_are_no_whole_states_are_refused(tmp_path):
    with pytest.raises(ValueError, match="12 steps are no multiple of 5"):
        states(tmp_path, every=5)
