"""Choices on validation tasks: the best of the grid, and of the validation alone."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.few_shot.evaluation import sampled, single
from flown_jax.few_shot.sampling import draw_heads
from flown_jax.few_shot.selection import choose_baselines, choose_temperature
from flown_jax.models import heads as linear
from flown_jax.models.logistic import fit_logistic
from tests.few_shot import small

PROBE = {"steps": 5, "learning_rate": 0.01, "weight_decay": 0.0, "use_bias": False}
VALIDATION = small.table(tasks=8, seed=3)


def test_length_and_penalties_are_the_most_accurate_of_their_grids():
    grid, inverse = (0.1, 1.0, 100.0), (1e-4, 1.0)
    chosen = choose_baselines(
        VALIDATION, PROBE, lengths=(0.5, 4.0), l2=grid, inverse_penalties=inverse
    )
    assert chosen["length"] == (0.5, 4.0)[int(np.argmax(chosen["probe_accuracy"]))]
    expected = [
        single(linear.ridge(VALIDATION.support(), l2=a), VALIDATION.query()).accuracy().mean()
        for a in grid
    ]
    np.testing.assert_allclose(chosen["ridge_accuracy"], expected, atol=1e-6)
    assert chosen["l2"] == grid[int(np.argmax(expected))]
    heads = [fit_logistic(VALIDATION.support(), inverse_penalty=c) for c in inverse]
    expected = [single(jnp.asarray(h), VALIDATION.query()).accuracy().mean() for h in heads]
    np.testing.assert_allclose(chosen["logistic_accuracy"], expected, atol=1e-6)
    assert chosen["inverse_penalty"] == inverse[int(np.argmax(expected))]


def test_the_temperature_is_the_likeliest_of_its_grid_on_validation():
    support, query = VALIDATION.support(), VALIDATION.query()
    draw = partial(draw_heads, small.parts(), jax.random.key(5), support, samples=3)
    chosen = choose_temperature(draw, VALIDATION, grid=(0.0, 3.0))
    assert chosen["temperature"] == (0.0, 3.0)[int(np.argmin(chosen["nll"]))]
    assert chosen["grid"] == [0.0, 3.0]
    assert len(chosen["accuracy"]) == len(chosen["ece"]) == 2
    heads, _ = draw(temperature=3.0)
    made = sampled(heads, query, support, top=1)
    np.testing.assert_allclose(chosen["nll"][1], made["ensemble"].nll().mean(), rtol=1e-4)
    # At temperature 0 every head is the same, so averaging gains nothing.
    np.testing.assert_allclose(chosen["accuracy"][0], chosen["mean_accuracy"][0], atol=1e-6)
    # Another choice is made from other validation tasks only, not from the parts' own default.
    again = choose_temperature(draw, VALIDATION, grid=(3.0,))
    assert again["temperature"] == 3.0 and again["nll"] == chosen["nll"][1:]
