"""Predictions of one head and of many, and mixtures of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation.predictions import Prediction
from flown_jax.few_shot.evaluation import head_log_probs, mixed_with_head, sampled, single
from tests.few_shot import small

pytestmark = pytest.mark.fast

TABLE = small.table(tasks=12)
QUERY, SUPPORT = jnp.asarray(TABLE.query()), jnp.asarray(TABLE.support())
HEADS = jax.random.normal(jax.random.key(0), (6, 12, small.WAY, small.WIDTH + 1))


def test_the_class_mean_head_is_right_more_often_than_a_random_one():
    means = SUPPORT.mean(2)
    heads = jnp.concatenate([2 * means, -(means**2).sum(-1, keepdims=True)], -1)
    assert single(heads, QUERY).accuracy().mean() > single(HEADS[0], QUERY).accuracy().mean() + 0.2


def test_many_equal_heads_are_one_head():
    one = single(HEADS[0], QUERY)
    made = sampled(jnp.stack([HEADS[0]] * 4), QUERY, SUPPORT, top=2)
    for prediction in made.values():
        np.testing.assert_allclose(prediction.accuracy(), one.accuracy())
        np.testing.assert_allclose(prediction.nll(), one.nll(), rtol=1e-5)


def test_the_ensemble_averages_probabilities():
    made = sampled(HEADS, QUERY, SUPPORT, top=2)
    probabilities = np.exp(np.asarray(head_log_probs(HEADS, QUERY)))
    np.testing.assert_allclose(
        np.exp(made["ensemble"].log_probs[0]), probabilities.mean(0), atol=1e-6
    )
    # The logarithm is concave: the average is never less likely than its members on average.
    assert (made["ensemble"].nll() <= made["mean"].nll() + 1e-9).all()


def test_selection_uses_the_support_or_says_that_it_uses_the_query():
    made = sampled(HEADS, QUERY, SUPPORT, top=1)
    fit = Prediction(np.asarray(head_log_probs(HEADS, SUPPORT)))
    of_head = np.stack([Prediction(fit.log_probs[s : s + 1]).nll() for s in range(len(HEADS))])
    best = of_head.argmin(0)
    every = np.asarray(head_log_probs(HEADS, QUERY))
    np.testing.assert_allclose(
        made["top_support"].log_probs[0], every[best, np.arange(len(best))], atol=1e-6
    )
    assert (made["top_query"].accuracy() >= made["mean"].accuracy() - 1e-9).all()


def test_a_head_of_weight_zero_leaves_a_prediction_as_it_is():
    alone = single(HEADS[0], QUERY)
    mixed = mixed_with_head(alone, HEADS[1], QUERY, 0.0)
    np.testing.assert_allclose(mixed.log_probs, alone.log_probs, atol=1e-6)


def test_a_mixture_multiplies_powers_of_the_probabilities():
    first, second = single(HEADS[0], QUERY), single(HEADS[1], QUERY)
    mixed = mixed_with_head(first, HEADS[1], QUERY, 2.0)
    product = np.exp(first.log_probs) * np.exp(second.log_probs) ** 2
    expected = product / product.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(mixed.log_probs), expected, atol=1e-5)
    # Two classes of logits a and b, and chance beside: weight 1 gives softmax(a, b).
    heads = jnp.zeros((1, 2, 3)).at[0, :, 2].set(jnp.asarray([np.log(3.0), 0.0]))
    chance = Prediction(np.full((1, 1, 2, 2), -np.log(2)))
    mixed = mixed_with_head(chance, heads, jnp.zeros((1, 2, 1, 2)), 1.0)
    np.testing.assert_allclose(np.exp(mixed.log_probs[0, 0]), [[0.75, 0.25]] * 2, rtol=1e-5)
