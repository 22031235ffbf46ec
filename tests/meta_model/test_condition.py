"""Conditions: what they are made of, what they must not depend on, and their noise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.conditioning import CAML, class_embeddings
from flown_jax.meta_model.condition import Conditioner, fit_conditioner, noisy_condition
from tests.few_shot import small
from tests.layers.helpers import quick_jit

SUPPORT = jnp.asarray(small.table().support())


def test_the_entry_shots_is_the_logarithm_of_the_images_a_class():
    conditioner = Conditioner(None, None, None, ("shots",))
    for shot, value in ((1, 0.0), (2, 1.0), (4, 2.0), (5, np.log2(5))):
        (name, entry), *others = conditioner(jnp.ones((3, 4, shot, 7))).items()
        assert name == "shots" and not others and entry.shape == (3, 4, 1)
        np.testing.assert_allclose(entry, value, rtol=1e-6)
    labels = jnp.asarray([0, 1, 1, 2, 2, 2, 2])
    ragged = conditioner.of_images(jnp.ones((7, 5)), labels, 3)["shots"]
    np.testing.assert_allclose(ragged, [[[0.0], [1.0], [2.0]]], atol=1e-6)


@pytest.mark.parametrize(
    "entries", [("features",), ("caml",), ("caml", "features"), ("features", "shots")]
)
def test_the_condition_is_bitwise_independent_of_the_query_images(entries):
    conditioner = small.parts(entries=entries).conditioner
    table = small.table()
    condition = conditioner(table.support())
    assert set(condition) == set(entries)
    # Another table with the same support and other queries.
    other = dataclasses.replace(
        table, episodes=table.episodes.replace(query=table.episodes.query[..., ::-1])
    )
    again = conditioner(other.support())
    for name in entries:
        np.testing.assert_array_equal(condition[name], again[name])


def test_one_task_of_unequal_classes_has_the_condition_of_its_means():
    conditioner = small.parts(entries=("caml", "features", "shots")).conditioner
    support = SUPPORT[:1]
    flat = support[0].reshape(-1, small.WIDTH)
    labels = jnp.repeat(jnp.arange(small.WAY), small.SHOT)
    whole = quick_jit(Conditioner.__call__)(conditioner, support)
    ragged = conditioner.of_images(flat, labels, small.WAY)
    assert set(ragged) == set(whole) == {"caml", "features", "shots"}
    for name in whole:
        np.testing.assert_allclose(ragged[name], whole[name], atol=1e-5)
    fewer = conditioner.of_images(flat[1:], labels[1:], small.WAY)
    np.testing.assert_allclose(fewer["features"][0, 0], flat[1], atol=1e-6)


def test_slots_are_standardised_over_the_training_tasks_of_all_shots():
    known = small.parts(entries=("caml",)).conditioner
    supports = [jnp.asarray(small.table(tasks=9, shot=k, seed=k).support()) for k in (1, 3)]
    made = fit_conditioner(("caml", "features"), iter(supports), known.caml, known.variables)
    assert made.entries == ("caml", "features")
    found = np.concatenate([made(support)["caml"] for support in supports])
    assert found.shape == (18, small.WAY, small.WIDTH + known.caml.label_dim)
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-4)
    raw = np.concatenate(
        [
            class_embeddings(known.caml, known.variables, s, query_source="support", chunk=250)
            for s in supports
        ]
    )
    np.testing.assert_allclose(found, made.statistics.apply(jnp.asarray(raw)), atol=1e-4)
    spread = raw.std(0) > 1e-3
    np.testing.assert_allclose(found.std(0)[spread], 1.0, atol=0.05)


def test_without_the_entry_neither_caml_nor_supports_are_looked_at():
    def supports():
        raise AssertionError("looked at")
        yield

    caml = CAML(**small.description(entries=("caml",))["caml"])
    made = fit_conditioner(("features", "shots"), supports(), caml, {"params": {}})
    assert made == Conditioner(None, None, None, ("features", "shots"))


def test_noise_changes_the_condition_and_nothing_else():
    key = jax.random.key(0)
    noisy = noisy_condition(key, {"features": jnp.zeros((400, 5, 8))}, 0.3)["features"]
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.03)
    known = small.parts().conditioner(SUPPORT)
    clean = noisy_condition(key, known, 0.0)
    np.testing.assert_array_equal(clean["features"], known["features"])


def test_the_noise_of_a_mean_falls_with_its_images_and_their_number_has_none():
    zeros, counts = jnp.zeros((3, 40, 50)), jnp.asarray([0.0, 1.0, 4.0])[:, None, None]
    condition = {"features": zeros, "caml": zeros, "shots": jnp.broadcast_to(counts, (3, 40, 1))}
    shot = jnp.asarray([1.0, 2.0, 16.0])
    noisy = noisy_condition(jax.random.key(1), condition, 0.4, shot)
    np.testing.assert_array_equal(noisy["shots"], condition["shots"])
    for name in ("features", "caml"):
        np.testing.assert_allclose(noisy[name].std((1, 2)), 0.4 / np.sqrt(shot), rtol=0.06)
        np.testing.assert_allclose(noisy[name].mean((1, 2)), 0.0, atol=0.05)
    correlation = jnp.corrcoef(noisy["features"][0].ravel(), noisy["caml"][0].ravel())[0, 1]
    assert abs(float(correlation)) < 0.1
