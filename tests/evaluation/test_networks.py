"""What networks are worth: copies in any order of units, accuracies, differences to the zoo."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation import networks as evaluation
from flown_jax.evaluation.classification import difference_interval
from flown_jax.evaluation.networks import (
    SetMeasures,
    best_of,
    classes,
    log_probabilities,
    measure,
    rows_of,
    yard,
)
from flown_jax.evaluation.novelty import error_sets
from flown_jax.weights.symmetries import transform
from tests.layers.helpers import quick_jit
from tests.networks import zoos
from tests.weights.test_alignment import networks, symmetries

SPEC = zoos.SPECS["grey"]
LABELS = np.random.default_rng(1).integers(0, zoos.CLASSES, 60)
DATA = SetMeasures(
    SPEC,
    zoos.weights("grey", 7),
    zoos.weights("grey", 5, seed=1),
    zoos.images("grey", 60, seed=2),
    LABELS,
    zoos.images("grey", 20, seed=3),
)
NEW = networks(SPEC, 12, seed=4)


@pytest.fixture(scope="module")
def scale():
    return yard(DATA)


def probabilities(weights, images=DATA.images):
    logits = quick_jit(jax.vmap(SPEC.apply, (0, None)))(weights, images)
    return np.asarray(jax.nn.softmax(logits))


def values(found):
    return {name: metric["value"] for name, metric in found.items()}


def test_log_probabilities_are_those_of_the_networks(monkeypatch):
    monkeypatch.setattr(evaluation, "_CHUNK", 16)  # the last chunk of 60 is filled up
    found = log_probabilities(SPEC, NEW, DATA.images)
    assert found.shape == (12, 60, zoos.CLASSES)
    np.testing.assert_allclose(np.exp(found), probabilities(NEW), atol=1e-5)


def test_the_yard_is_measured_on_the_zoo(scale):
    own = probabilities(DATA.train).argmax(-1) == LABELS
    np.testing.assert_array_equal(scale.errors, ~own)
    np.testing.assert_allclose(scale.originals, own.mean(1))
    assert scale.held_out.shape == (5, 7) and scale.among.shape == (7, 7)
    np.testing.assert_allclose(scale.unit.nearest, scale.held_out.min(1).mean())
    pairs = scale.among[~np.eye(7, dtype=bool)]
    np.testing.assert_allclose(scale.unit.pairwise, pairs.mean())
    few = yard(DATA, networks=4)
    np.testing.assert_allclose(few.among, scale.among[:4, :4], atol=1e-5)
    np.testing.assert_allclose(few.held_out, scale.held_out, atol=1e-5)


def test_copies_are_found_in_any_order_of_their_units(scale):
    copies = transform(SPEC, DATA.train[[5, 0, 3]], symmetries(SPEC, 3))
    assert np.linalg.norm(copies - DATA.train[[5, 0, 3]], axis=1).min() > 0.5
    found = values(measure(DATA, scale, np.concatenate([copies, NEW[:2]]))[0])
    assert found["copies"] == 3 and found["duplicates"] == 0
    np.testing.assert_allclose(found["nn_smallest"], 0, atol=1e-4)
    twice = np.concatenate([NEW[:3], transform(SPEC, NEW[:1], symmetries(SPEC, 1))])
    found = values(measure(DATA, scale, twice)[0])
    assert found["copies"] == 0 and found["duplicates"] == 1
    assert found["nn_smallest"] > 0.5


def test_the_originals_are_no_copies_of_themselves(scale):
    found, accuracy = measure(DATA, scale, DATA.train, itself=True)
    # Each other's neighbours are not independent, and what is compared with itself is no sample.
    assert all(found[k]["ci95"] is None for k in ("nn", "error_iou_train"))
    assert found["accuracy_minus_originals"]["ci95"] is None
    found = values(found)
    np.testing.assert_allclose(accuracy, scale.originals)
    assert found["copies"] == 0 and found["nn_smallest"] > 0.5
    np.testing.assert_allclose(found["diversity"], 1, rtol=1e-5)
    np.testing.assert_allclose(found["accuracy_minus_originals"], 0, atol=1e-12)
    found = values(measure(DATA, scale, DATA.train)[0])
    assert found["copies"] == len(DATA.train)


def test_accuracies_are_counted_on_the_test_images(scale):
    found, accuracy = measure(DATA, scale, NEW)
    scores = probabilities(NEW)
    expected = np.mean(scores.argmax(-1) == LABELS, axis=1)
    np.testing.assert_allclose(accuracy, expected)
    value = values(found)
    ranked = np.sort(expected)
    assert ranked[0] < ranked[-1]  # else the next lines would tell nothing
    np.testing.assert_allclose(value["accuracy"], expected.mean())
    np.testing.assert_allclose(value["accuracy_std"], expected.std(ddof=1))
    np.testing.assert_allclose(value["accuracy_min"], ranked[0])
    np.testing.assert_allclose(value["accuracy_top5"], ranked[-5:].mean())
    np.testing.assert_allclose(
        value["accuracy_minus_originals"], expected.mean() - scale.originals.mean()
    )
    # The averaged probabilities of the first ten, whoever is the best.
    ten = scores[:10].mean(0).argmax(-1)
    np.testing.assert_allclose(value["accuracy_ensemble"], np.mean(ten == LABELS))
    counts = {name: metric["n"] for name, metric in found.items()}
    assert counts["accuracy"] == 12
    assert counts["accuracy_top5"] == 5 and counts["accuracy_ensemble"] == 10
    minus = found["accuracy_minus_originals"]
    both = difference_interval(expected, scale.originals)
    assert (minus["value"], minus["ci95"]) == pytest.approx(both)


def test_shared_errors_are_those_with_the_zoo(scale):
    found = values(measure(DATA, scale, NEW)[0])
    errors = error_sets(probabilities(NEW).argmax(-1), LABELS)
    assert errors.sum(1).min() >= 20
    both = errors[:, None] & scale.errors
    iou = both.sum(-1) / (errors[:, None] | scale.errors).sum(-1)
    np.testing.assert_allclose(found["error_iou_train"], iou.max(1).mean())


def test_a_single_network_has_no_spread(scale):
    found, accuracy = measure(DATA, scale, NEW[:1])
    assert accuracy.shape == (1,)
    undefined = {name for name, metric in found.items() if metric["value"] is None}
    assert undefined == {"accuracy_std", "diversity", "error_iou_among"}
    assert "direction_diversity" not in found and found["length"]["value"] > 0
    assert found["accuracy"]["ci95"] is None and found["accuracy_ensemble"]["n"] == 1
    assert found["accuracy_ensemble"]["value"] == found["accuracy"]["value"] == accuracy[0]


def test_rows_are_tidy_and_leave_out_what_is_undefined(scale):
    found, _ = measure(DATA, scale, NEW[:1])
    rows = rows_of("retrieval", "flown", "mnist", found, "zoo")
    kept = [name for name, metric in found.items() if metric["value"] is not None]
    assert [row["metric"] for row in rows] == kept and len(kept) < len(found)
    for row in rows:
        assert (row["over"], row["unit"]) == ("networks", "zoo")
        assert (row["table"], row["method"], row["set"]) == ("retrieval", "flown", "mnist")
        assert row["value"] == found[row["metric"]]["value"]
    # A perfect network has no errors to share.
    easy = SetMeasures(
        *(getattr(DATA, k) for k in ("spec", "train", "held_out", "images")),
        probabilities(NEW[:1])[0].argmax(-1),
        DATA.matching,
    )
    metrics, accuracy = measure(easy, yard(easy), jnp.asarray(NEW[:1]))
    assert accuracy[0] == 1
    names = {row["metric"] for row in rows_of("retrieval", "flown", "mnist", metrics, "zoo")}
    assert "accuracy" in names and "error_iou_train" not in names


def test_longer_networks_are_further_apart_in_no_direction(scale):
    found = values(measure(DATA, scale, DATA.train, itself=True)[0])
    np.testing.assert_allclose([found["direction_diversity"], found["length"]], 1, rtol=1e-4)
    # All weights and biases of a layer of a CNN without its scale kept: lengths double.
    longer = values(measure(DATA, scale, 2 * DATA.train)[0])
    assert longer["length"] > 1.5 and longer["diversity"] > 1.5
    assert longer["direction_diversity"] < 1.2


def test_the_best_few_of_as_many_networks_are_compared():
    accuracies = np.array([0.1, 0.9, 0.4, 0.6, 0.5, 0.8, 0.2])
    for drawn, best in ((7, 5), (4, 2), (3, 5), (1, 5)):
        chosen = itertools.combinations(accuracies, drawn)
        wanted = np.mean([np.sort(part)[-best:].mean() for part in chosen])
        assert best_of(accuracies, drawn, best) == pytest.approx(wanted)
    many = np.random.default_rng(1).normal(size=3000)
    assert 3 < best_of(many, 1500) < np.sort(many)[-5:].mean()
    # Equal networks are level, where the best five against the mean of all are far above.
    rng = np.random.default_rng(0)
    apart = [
        best_of(rng.normal(size=50), 50) - best_of(rng.normal(size=80), 50) for _ in range(400)
    ]
    assert abs(np.mean(apart)) < 0.05


def test_a_network_without_answers_is_wrong_about_every_image():
    broken = np.array(DATA.train[:3])
    broken[1] = np.nan
    accuracy = error_sets(classes(log_probabilities(SPEC, broken, DATA.images)), LABELS)
    assert accuracy[1].all() and not accuracy[0].all()
    assert classes(np.array([[0.2, 0.8], [np.nan, 0.1], [0.9, np.nan]])).tolist() == [1, -1, -1]


def test_networks_that_are_not_finite_are_counted_and_have_no_distances(scale):
    broken = np.array(NEW)
    broken[[2, 5]] = np.inf
    found, accuracy = measure(DATA, scale, broken)
    assert found["not_finite"]["value"] == 2 and found["nn"]["n"] == len(NEW) - 2
    assert accuracy[2] == accuracy[5] == 0
    assert found["accuracy"]["value"] == pytest.approx(accuracy.mean())
    nothing, _ = measure(DATA, scale, np.full_like(NEW, np.nan))
    assert nothing["accuracy"]["value"] == 0 and "nn" not in nothing
