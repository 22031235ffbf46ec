"""Populations: each model for itself, whatever is trained beside it, in whatever pieces."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.models.many import logits
from flown_jax.training import many
from flown_jax.training.optimizers import adam

SHAPE = (6, 6, 1)
# One convolution: compilation is what these tests take.
CNN_TINY = CNN(channels=(2,), kernels=(3,), pools=(True,), hidden=(), num_classes=3)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(23, *SHAPE)).astype(np.float32)
LABELS = RNG.integers(0, 3, 23)
OPTIMIZER = adam(1e-2, weight_decay=1e-2, steps=1)
BATCH = 5  # 4 whole batches and one of 3


@jax.jit
def initial(key):
    return initialise_cnn(key, CNN_TINY, SHAPE, "kaiming_uniform")


def start(seeds):
    params = [initial(jax.random.key(seed)) for seed in seeds]
    return many.create(jax.tree.map(lambda *x: np.stack(x), *params), seeds, OPTIMIZER)


@pytest.fixture(scope="module")
def trainer():
    return many.Trainer(logits(CNN_TINY, "tiles"), OPTIMIZER, IMAGES, LABELS, batch=BATCH)


def trained(trainer, seeds, pieces=((0, 0, 5), (1, 0, 5))):
    placed = trainer.place(start(seeds))
    for epoch, begin, stop in pieces:
        placed = trainer.advance(placed, trainer.orders(placed, epoch), begin, stop)
    return trainer.collect(placed)


def assert_equal(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_is_what_its_seed_makes_it(trainer):
    """Bit for bit, alone or in company, in one group or several, in any place."""
    together = trained(trainer, [1, 2, 3, 4, 5, 6])  # two groups of 4, one not full
    for seeds in ([3], [6, 2, 1], [5, 4, 3, 2]):
        alone = trained(trainer, seeds)
        places = [seed - 1 for seed in seeds]
        assert_equal(alone, jax.tree.map(lambda x, i=places: np.asarray(x)[i], together))


def test_the_pieces_of_an_epoch_do_not_matter(trainer):
    whole = trained(trainer, [1, 2, 3])
    pieces = ((0, 0, 2), (0, 2, 3), (0, 3, 5), (1, 0, 1), (1, 1, 5))
    assert_equal(whole, trained(trainer, [1, 2, 3], pieces))


def test_a_model_trained_in_a_plain_loop_is_the_same(trainer):
    """The order of the data, the smaller last batch, the optimizer and the sums of an epoch."""
    found = trained(trainer, [7])
    population = start([7])
    params = jax.tree.map(lambda x: x[0], population.params)
    state = OPTIMIZER.init(params)

    def loss_fn(params, images, labels):
        scores = CNN_TINY.apply({"params": params}, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return losses.mean(), (scores.argmax(-1) == labels).sum()

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    for epoch in range(2):
        order = np.asarray(many.epoch_order(7, epoch, len(IMAGES), BATCH))[: len(IMAGES)]
        assert sorted(order) == list(range(len(IMAGES)))
        total, correct = 0.0, 0
        for i in range(0, len(order), BATCH):
            index = order[i : i + BATCH]
            (loss, right), gradients = step(params, IMAGES[index], LABELS[index])
            updates, state = OPTIMIZER.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            total, correct = total + float(loss) * len(index), correct + int(right)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a[0], b, atol=2e-5)
    assert found.seen[0] == len(IMAGES) and found.correct[0] == correct
    np.testing.assert_allclose(found.loss[0], total, rtol=1e-4)


def test_orders_differ_between_seeds_and_epochs():
    orders = [tuple(np.asarray(many.epoch_order(s, e, 50, 10))) for s in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 4


def test_all_models_at_once_as_on_an_accelerator(trainer, monkeypatch):
    monkeypatch.setattr(many, "on_cpu", lambda: False)
    at_once = many.Trainer(logits(CNN_TINY, "map"), OPTIMIZER, IMAGES, LABELS, batch=BATCH)
    found, expected = trained(at_once, [1, 2, 3]), trained(trainer, [1, 2, 3])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_evaluation_counts_every_image_once(monkeypatch):
    monkeypatch.setattr(many, "_EVALUATED", 10)  # 23 images: two whole blocks and one of 3
    population = start([1, 2])
    scores = np.stack(
        [
            CNN_TINY.apply({"params": jax.tree.map(lambda x, i=i: x[i], population.params)}, IMAGES)
            for i in range(2)
        ]
    )
    evaluator = many.Evaluator(logits(CNN_TINY, "tiles"), IMAGES, LABELS)
    found = evaluator(population.params)
    np.testing.assert_allclose(found["accuracy"], (scores.argmax(-1) == LABELS).mean(1))
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, np.stack([LABELS] * 2))
    np.testing.assert_allclose(found["loss"], losses.mean(1), rtol=1e-5)
    # NaN is no answer: a network that broke is not right about the first class.
    good = np.array([True, False])
    broken = jax.tree.map(
        lambda x: np.where(good.reshape(2, *[1] * (x.ndim - 1)), x, np.nan).astype(np.float32),
        population.params,
    )
    assert evaluator(broken)["accuracy"].tolist() == [found["accuracy"][0], 0.0]
