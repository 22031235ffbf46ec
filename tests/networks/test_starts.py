"""Starts of fine-tuning: what they are, which are chosen, and what their runs are worth."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.meta_model.sampling import sample_keys
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks import starts
from flown_jax.training.zoo_recipe import ZooRecipe
from flown_jax.weights.spec import WeightSpec

NETWORK = CNN(channels=(2,), kernels=(3,), pools=(False,), hidden=(), num_classes=3)
INPUTS = {"size": 4, "channels": 1, "mean": [0.0], "std": [1.0], "crop": None}


def spec_of():
    shapes = jax.eval_shape(
        lambda key: initialise_cnn(key, NETWORK, (4, 4, 1), "uniform"), jax.random.key(0)
    )
    return WeightSpec.from_module(NETWORK, {"params": shapes}, inputs=INPUTS)


SPEC = spec_of()
OURS = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "momentum": 0.8,
    "batch": 7,
    "initialisation": "uniform",
}


def test_recipe_is_the_zoos_own():
    found = ZooRecipe.of("digits", OURS | {"epochs": 30})
    assert {key: getattr(found, key) for key in OURS} == OURS
    assert found.remarks == ()
    inside = found.in_steps(50)
    assert (inside.steps, inside.schedule, inside.momentum) == (50, "cosine", 0.8)
    assert not inside.nesterov


def test_recipe_of_an_imported_zoo_is_read_by_its_own_names():
    published = {
        "optim::optimizer": "adam",
        "optim::lr": 3e-4,
        "optim::wd": 0,
        "training::batchsize": 12,
        "model::init_type": "kaiming_normal",
    }
    found = ZooRecipe.of("mnist", published)
    assert (found.optimizer, found.learning_rate, found.batch) == ("adam", 3e-4, 12)
    assert (found.initialisation, found.schedule, found.remarks) == (
        "kaiming_normal",
        "constant",
        (),
    )


def test_recipe_that_is_not_said_is_adams_with_a_remark():
    found = ZooRecipe.of("mnist", {"source": "state_dicts"})
    assert (found.optimizer, found.learning_rate, found.batch) == ("adam", 1e-3, 10)
    assert found.initialisation == ""
    beginning, missing = found.remarks
    assert "no zoo_start" in beginning
    assert "optimizer adam, learning_rate 0.001, batch 10" in missing


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        ("optimizer", "lamb", "adam"),
        ("schedule", "multistep", "constant"),
        ("learning_rate", 0.0, 1e-3),
        ("weight_decay", -1.0, 0.0),
        ("batch", "ten", 10),
    ],
)
def test_recipe_of_another_kind_is_replaced_with_a_remark(field, value, instead):
    found = ZooRecipe.of("mnist", OURS | {field: value})
    assert getattr(found, field) == instead
    assert len(found.remarks) == 1 and f"{field} {instead}" in found.remarks[0]


def test_initialisation_of_another_kind_is_left_out():
    found = ZooRecipe.of("mnist", OURS | {"initialisation": "orthogonal"})
    assert found.initialisation == "" and "no zoo_start" in found.remarks[0]


def test_image_sets_on_the_disk(tmp_path):
    assert starts.on_disk(["greek", "usps", "digits"], tmp_path) == ("greek", "digits")


def keys(count):
    return sample_keys(jax.random.key(3), count)


def test_random_starts_are_draws_of_the_scheme():
    found = starts.random_starts(keys(4), SPEC, "uniform")
    assert found.shape == (4, SPEC.size)
    biases = np.concatenate([np.ravel(v) for k, v in tensors(found[0]).items() if "bias" in k])
    np.testing.assert_allclose(biases, 0.01)
    kernel = tensors(found[0])["kernel_0"]
    assert kernel.min() >= 0 and 0.5 < kernel.max() <= 1
    assert len({row.tobytes() for row in found}) == 4


def test_random_starts_do_not_depend_on_how_many_are_drawn():
    many, few = (starts.random_starts(keys(count), SPEC, "kaiming_normal") for count in (3, 2))
    np.testing.assert_allclose(many[:2], few, rtol=1e-6)


def test_a_network_of_another_kind_has_no_random_starts():
    class Other:
        inputs_dict = INPUTS

        def module(self):
            return nn.Dense(3)

    assert starts.random_starts(keys(2), Other(), "uniform") is None


def tensors(vector):
    layers = SPEC.unflatten(vector)["params"].values()
    return {f"{k}_{i}": np.asarray(layer[k]) for i, layer in enumerate(layers) for k in layer}


def test_members_differ_as_far_as_they_can():
    weights = np.arange(10.0).reshape(5, 2)
    found = starts.members(0, weights, 7)
    assert {tuple(row) for row in found[:5]} == {tuple(row) for row in weights}
    np.testing.assert_array_equal(found[5:], found[:2])
    assert not np.array_equal(starts.members(1, weights, 5), found[:5])


def test_mean_is_one_start():
    weights = np.asarray([[0.0, 2.0], [1.0, 4.0]], np.float32)
    np.testing.assert_array_equal(starts.mean_start(weights, 3), [[0.5, 3.0]] * 3)


def test_nearest_is_that_of_most_draws():
    banks = {name: {"a": np.full((2, 1, 1), at)} for name, at in (("x", 0.0), ("y", 10.0))}
    assert starts.nearest({"a": np.asarray([1.0, 9.0, 8.0]).reshape(3, 1, 1)}, banks) == "y"
    assert starts.nearest({"a": np.asarray([9.0, 1.0]).reshape(2, 1, 1)}, banks) == "x"
