"""Networks trained on from given weights: each for itself, at its own rate, whatever is beside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.models.many import logits
from flown_jax.training import fine_tuning, many, zoos
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.optimizers import sgd
from flown_jax.training.recipe import Recipe
from flown_jax.training.records import Records, read_metrics
from flown_jax.training.stages import StageContext
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights.spec import Entry, WeightSpec
from tests.training.test_many import IMAGES, LABELS, SHAPE

# One window, no pooling: compilation is what these tests take.
NETWORK = CNN(channels=(2,), kernels=(6,), pools=(False,), hidden=(), num_classes=3)


@jax.jit
def initial(key):
    return initialise_cnn(key, NETWORK, SHAPE, "kaiming_uniform")


SHAPES = {"params": jax.eval_shape(initial, jax.random.key(0))}
SPEC = WeightSpec.from_module(NETWORK, SHAPES)
SEEDS = (1, 2, 3, 4)
RATES = np.asarray([1e-2, 3e-3, 1e-3, 1e38])  # the last network diverges at once
GOOD = slice(0, 3)
RECIPE = Recipe(
    steps=15, batch=5, learning_rate=1e-2, weight_decay=1e-2, schedule="constant", optimizer="adam"
)


def vector(seed):
    return np.asarray(SPEC.flatten({"params": initial(jax.random.key(seed))}))


STARTS = np.stack([vector(seed) for seed in SEEDS])


def context(folder, name="tuning"):
    return StageContext(name, folder / "progress", Records(folder))


def run(folder, starts=STARTS, seeds=SEEDS, rates=RATES, epochs=(0, 1, 3), **others):
    given = {
        "optimizer": RECIPE,
        "images": IMAGES,
        "labels": LABELS,
        "batch": 5,
        "seeds": seeds,
        "learning_rates": rates,
        "epochs": epochs,
    }
    stage = context(folder)
    try:
        return fine_tuning.fine_tune(stage, SPEC, starts, **{**given, **others})
    finally:
        stage.records.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(folder):
    return run(folder)


def test_the_wanted_epochs_are_kept_and_the_first_is_the_start(whole, tmp_path):
    assert whole["weights"].shape == (3, 4, SPEC.size)
    np.testing.assert_array_equal(whole["weights"][0], STARTS)
    assert np.isnan(whole["train_accuracy"][0]).all() and np.isnan(whole["train_loss"][0]).all()
    assert (whole["train_loss"][2, GOOD] < whole["train_loss"][1, GOOD]).all()
    untrained = run(tmp_path, epochs=(0,))
    np.testing.assert_array_equal(untrained["weights"], STARTS[None])


def test_a_diverging_network_is_marked_and_keeps_its_last_finite_weights(whole):
    np.testing.assert_array_equal(whole["finite"], [True, True, True, False])
    for weights in whole["weights"]:  # it was lost in the first epoch: what is left is the start
        np.testing.assert_array_equal(weights[3], STARTS[3])
    for name in ("train_loss", "train_accuracy"):
        assert np.isnan(whole[name][:, 3]).all() and np.isfinite(whole[name][1:, GOOD]).all()


def test_the_records_are_of_the_networks_that_are_finite(whole, folder):
    last = read_metrics(folder)[-1]
    assert last["not_finite"] == 1
    assert last["loss"] == pytest.approx(whole["train_loss"][-1, GOOD].mean(), rel=1e-5)


@pytest.mark.parametrize("lost", [0, 5])
def test_what_is_lost_keeps_the_wanted_epoch_before_or_the_start(tmp_path, lost):
    def optimizer(rate):
        # The first epoch has 5 steps.
        late = optax.scale_by_schedule(lambda step: jnp.where(step >= lost, jnp.inf, -1.0))
        return optax.chain(late, optax.scale(rate))

    found = run(tmp_path, STARTS[:1], [1], 0.1, epochs=(1, 3), optimizer=optimizer)
    assert not found["finite"].any()
    assert np.array_equal(found["weights"][0, 0], STARTS[0]) == (lost == 0)
    np.testing.assert_array_equal(found["weights"][1], found["weights"][0])
    np.testing.assert_array_equal(np.isnan(found["train_loss"][:, 0]), [lost == 0, True])


def test_what_was_lost_once_stays_lost():
    """Also where its loss is a number again, and where the epoch is not wanted."""
    ones = np.ones(2, np.float32)

    def population(epoch, loss):
        return many.Population(ones, ones[:, None] * epoch, (), np.asarray(loss), ones, ones)

    start = population(0, [0.0, 0.0])
    snapshots = fine_tuning._FiniteSnapshots([0, 1, 3], start, lambda params: jnp.asarray(params))
    for epoch, loss in enumerate([[0.0, 0.0], [3.0, 3.0], [2.0, np.inf], [1.0, 1.0]]):
        snapshots.take(epoch, population(epoch, loss))
    np.testing.assert_array_equal(snapshots.tree["finite"], [True, False])
    np.testing.assert_array_equal(snapshots.tree["weights"][:, :, 0], [[0, 0], [1, 1], [3, 1]])
    np.testing.assert_array_equal(snapshots.tree["train_loss"][1:], [[3, 3], [1, np.nan]])


def test_from_its_initialisation_a_zoo_is_trained_again(tmp_path):
    """With the zoo's seeds, recipe and rate the same weights come out."""
    records = Records(tmp_path / "zoo")
    zoo = train_zoo(
        StageContext("zoo", tmp_path / "zoo/progress", records),
        Plan(SEEDS, 2, (0, 1, 2)),
        initialise=initial,
        flatten=lambda params: SPEC.flatten({"params": params}),
        logits=logits(NETWORK, "tiles"),
        optimizer=RECIPE.chain(),
        images=IMAGES,
        labels=LABELS,
        batch=5,
    )
    records.close()
    found = run(tmp_path, zoo["weights"][0], rates=RECIPE.learning_rate, epochs=(0, 1, 2))
    for name, values in zoo.items():
        # The rate is a constant of one program and an argument of the other: rounding only.
        np.testing.assert_allclose(found[name], values, atol=1e-6, rtol=1e-6)


def test_a_network_does_not_depend_on_those_beside_it(whole, tmp_path):
    """Bit for bit: fewer, in another order, without the one that diverges, other epochs."""
    kept = [2, 0]
    found = run(tmp_path, STARTS[kept], [SEEDS[i] for i in kept], RATES[kept], epochs=(1, 3))
    assert found["finite"].all()
    for name in ("weights", "train_accuracy", "train_loss"):
        np.testing.assert_array_equal(found[name], whole[name][1:, kept])


def test_each_network_has_its_own_learning_rate(tmp_path):
    """One start and one order of the data under four rates, and plain SGD's first step."""
    one_step = {"images": IMAGES[:5], "labels": LABELS[:5], "epochs": (1,)}
    rates = np.asarray([0.0, 0.01, 0.02, 0.04])
    starts, seeds = np.repeat(STARTS[:1], 4, axis=0), [7] * 4
    found = run(tmp_path, starts, seeds, rates, optimizer=lambda rate: optax.sgd(rate), **one_step)
    moved = found["weights"][0] - STARTS[0]
    assert not moved[0].any() and np.abs(moved[1]).max() > 1e-3
    # Differences of float32 numbers around 1.
    np.testing.assert_allclose(moved[2:], [2 * moved[1], 4 * moved[1]], atol=1e-6)


def test_a_recipes_schedule_scales_with_the_rate():
    """At rate r a recipe is the one whose rate is r, the floor's share kept."""
    curve = {"steps": 6, "batch": 5, "optimizer": "sgd", "schedule": "cosine", "warmup": 2}
    optimizer = fine_tuning._own_rate(Recipe(learning_rate=0.1, floor=0.02, **curve))
    expected = Recipe(learning_rate=0.05, floor=0.01, **curve).chain()
    gradient = jnp.asarray([1.0, -2.0])
    state, other = optimizer.init(gradient), expected.init(gradient)
    state.hyperparams["learning_rate"] = jnp.asarray(0.05)
    for _ in range(6):
        update, state = optimizer.update(gradient, state, gradient)
        wanted, other = expected.update(gradient, other, gradient)
        np.testing.assert_allclose(update, wanted, rtol=1e-5)


def test_a_run_that_is_killed_ends_where_a_whole_one_ends(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(zoos, "_SAVE_SECONDS", 0.0)  # a checkpoint after every call
    monkeypatch.setattr(zoos, "_adapted", lambda length, seconds: 2)  # calls within an epoch
    save, saves = Checkpoints.save, []

    def save_and_die(self, step, tree):
        save(self, step, tree)
        saves.append(step)
        if step == 7 and len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    found = run(tmp_path)
    assert saves == [5, 7, 10, 12, 14, 15]  # epochs have 5 steps
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)


def test_accuracy_of_vectors_with_any_leading_axes(whole):
    found = fine_tuning.accuracy(SPEC, whole["weights"], IMAGES, LABELS)
    assert found.shape == (3, 4)
    for i, j in ((0, 0), (2, 1)):
        scores = NETWORK.apply(SPEC.unflatten(whole["weights"][i, j]), IMAGES)
        assert found[i, j] == pytest.approx((scores.argmax(-1) == LABELS).mean())
    assert fine_tuning.accuracy(SPEC, STARTS[:0], IMAGES, LABELS).shape == (0,)


LOST = STARTS.copy()
LOST[1, 4] = np.nan


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"starts": STARTS[:, 1:]}, r"starts must be \(\.\.\., 83\), .* not \(4, 82\)"),
        ({"starts": STARTS[0]}, r"starts must be \(N, 83\) with N >= 1, not \(83,\)"),
        ({"starts": LOST}, r"starts\[1\] has values that are not finite"),
        ({"seeds": (1, 2)}, "seeds must be 4 whole numbers from 0"),
        ({"seeds": (1, 2, 3, -1)}, "seeds must be 4 whole numbers from 0"),
        ({"rates": [0.1, 0.2]}, r"one number or 4, one for each start, not of shape \(2,\)"),
        ({"rates": np.inf}, "learning_rates must be finite"),
        ({"epochs": (2, 1)}, r"epochs must be whole numbers .* not \(2, 1\)"),
        ({"epochs": ()}, "epochs must be whole numbers"),
        ({"batch": 0}, "batch is 0"),
        ({"labels": LABELS[1:]}, r"labels \(n,\) .* not \(23, 6, 6, 1\) and \(22,\)"),
        ({"labels": LABELS + 1}, "labels must lie from 0 below 3, .* from 1 to 3"),
        (
            {
                "optimizer": lambda rate: sgd(
                    rate, momentum=0.0, nesterov=False, weight_decay=0.0, steps=1
                )
            },
            "optimizer looks at the value of its learning rate",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, **change)


def test_specs_and_images_that_do_not_fit_are_refused():
    half = SPEC.subset(lambda name: name.endswith("weight"))
    running = WeightSpec((Entry("bn.running_mean", "batch_stats/bn/mean", (4,)),))
    for spec in (half, running):
        with pytest.raises(UserError, match="weights of whole networks without running"):
            fine_tuning.accuracy(spec, np.zeros((1, spec.size)), IMAGES, LABELS)
    spec = WeightSpec.from_module(NETWORK, SHAPES, inputs={"size": 8, "channels": 1})
    with pytest.raises(UserError, match=r"take images \(8, 8, 1\), .* are \(6, 6, 1\)"):
        fine_tuning.accuracy(spec, STARTS, IMAGES, LABELS)
