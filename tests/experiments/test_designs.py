"""Designs beside the main one: what they change, and what there is not."""

from __future__ import annotations

import pytest

from configs.unconditional import get_config
from experiments.designs import changed
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
