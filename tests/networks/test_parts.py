"""Parts of networks as targets: the last normalisations of a ResNet-18 in a network that stays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.errors import UserError
from flown_jax.evaluation.networks import log_probabilities
from flown_jax.meta_model.build import codec_of
from flown_jax.models import registry
from flown_jax.models.subsets import last_norms
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.trees import load_tree, save_tree
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import initial_variables

MODULE = registry.build("resnet18", {"width": 2, "num_classes": 3})
INPUTS = {"size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "crop": None}
RNG = np.random.default_rng(0)
LABELS = np.asarray([0, 1, 2, 0])
OF = OfSet("pets")


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global BASE, WHOLE, PART, WEIGHTS, IMAGES
    BASE = jax.tree.map(np.asarray, initial_variables(MODULE, np.zeros((1, 8, 8, 3), np.float32)))
    WHOLE = WeightSpec.from_module(MODULE, BASE, inputs=INPUTS)
    PART = WHOLE.subset(set(last_norms("resnet18", MODULE)).__contains__)
    WEIGHTS = RNG.normal(1, 0.3, (5, PART.size)).astype(np.float32)
    IMAGES = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)


def space():
    joint = JointSpace.of({"pets": PART})
    return NetworkSpace.fit(joint, {"pets": WEIGHTS}, {"pets": BASE})


def test_a_part_goes_there_and_back_within_its_network():
    target = space()
    x1 = target.normalise(WEIGHTS, OF)
    assert x1.shape == (5, *target.shape) == (5, PART.size)
    np.testing.assert_allclose(target.restore(x1, OF), WEIGHTS, atol=1e-5)


def test_it_is_no_graph_by_itself():
    about = {"form": "mlp", "sizes": {"latent_shape": [2, 2, 2], "hidden_dim": 8}}
    assert codec_of(about, space()).in_dim == PART.size
    with pytest.raises(UserError, match="are a part of a network, .* codec.encoder is 'vae'.$"):
        codec_of({**about, "encoder": "graph", "graph": {}}, space())


def test_the_task_loss_is_the_whole_networks():
    target = space()
    batch = {"context": OF, "images": jnp.asarray(IMAGES), "labels": LABELS}
    found = target.task_loss(jnp.asarray(WEIGHTS), batch)
    for row, weights in zip(found, WEIGHTS, strict=True):
        logits = MODULE.apply(PART.unflatten(jnp.asarray(weights), BASE), IMAGES, train=False)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
        np.testing.assert_allclose(row, expected, atol=1e-4)
    log_probs = log_probabilities(PART, WEIGHTS, IMAGES, BASE)
    picked = log_probs[:, np.arange(4), LABELS]
    np.testing.assert_allclose(picked, -found, atol=1e-4)


def test_it_is_stored_with_the_network_around_it(tmp_path):
    description, arrays = space().describe()
    save_tree(tmp_path / "arrays.safetensors", arrays)
    stored = jax.tree.map(jnp.asarray, load_tree(tmp_path / "arrays.safetensors"))
    again = NetworkSpace.build(description, stored)
    (state,) = again.state_dicts(WEIGHTS[:1], OF)
    assert set(state) == set(MODULE.state_dict_names())
    part = np.concatenate([state[name].reshape(-1) for name in PART.names])
    np.testing.assert_array_equal(part, WEIGHTS[0])
    untouched = "conv1.weight"
    expected = WHOLE.flatten(BASE)[WHOLE.slices[untouched]]
    np.testing.assert_array_equal(state[untouched].reshape(-1), expected)
