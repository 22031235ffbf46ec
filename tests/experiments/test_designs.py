"""Designs beside the main one: what they change, and what there is not."""

from __future__ import annotations

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.unconditional import get_config
from experiments.designs import changed, coded, codes_of
from flown_jax.errors import UserError


def test_another_form_has_other_sizes():
    config = get_config("tiny").states
    found = changed(config, config.beside.kl.to_dict())
    assert found.codec.form == "autoencoder_kl" and "hidden_dim" not in found.codec.sizes
    assert found.codec.recipe.learning_rate == config.codec.recipe.learning_rate
    assert config.codec.form == "mlp"  # as it was


def test_sizes_of_the_same_form_are_changed_one_by_one():
    config = get_config("tiny").states
    found = changed(config, {"codec": {"sizes": {"hidden_dim": 5}}})
    assert found.codec.sizes.hidden_dim == 5
    assert found.codec.sizes.latent_shape == config.codec.sizes.latent_shape


def test_a_field_that_there_is_not_is_named():
    config = get_config("tiny").states
    with pytest.raises(UserError, match=r"changes codec\.sizes\.width, and there is no such"):
        changed(config, {"codec": {"sizes": {"width": 5}}})


def test_shuffled_networks_keep_every_weight_and_no_network():
    weights = {"a": np.random.default_rng(0).normal(size=(40, 30)), "b": np.eye(40, 3)}
    plain = ConfigDict({"codes": "members"})
    assert coded(plain, weights, 0) is weights and codes_of(ConfigDict({})) == "members"
    found = coded(ConfigDict({"codes": "shuffled"}), weights, 0)
    for name, own in weights.items():
        np.testing.assert_array_equal(np.sort(found[name], 0), np.sort(own, 0))
    # Two weights that were one are none of each other's now.
    twice = {"a": np.repeat(weights["a"][:, :1], 2, axis=1)}
    moved = coded(ConfigDict({"codes": "shuffled"}), twice, 0)["a"]
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.5
    other = coded(ConfigDict({"codes": "shuffled"}), weights, 1)
    assert np.any(other["a"] != found["a"])
