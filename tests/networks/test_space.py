"""Standardised weights: they come back, and each tensor counts alike."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.meta_model.targets import Support
from flown_jax.networks.space import NetworkSpace, OfSet
from tests.layers.helpers import quick_jit
from tests.networks import model, zoos

pytestmark = pytest.mark.fast

WEIGHTS = {name: zoos.weights(name) for name in zoos.SPECS}
SPACE = NetworkSpace.fit(zoos.JOINT, WEIGHTS)


@pytest.mark.parametrize("name", zoos.SPECS)
def test_weights_come_back(name):
    new = 3 * zoos.weights(name, seed=7)
    x = SPACE.normalise(new, OfSet(name))
    assert x.shape == (6, zoos.JOINT.size) and x.dtype == np.float32
    np.testing.assert_allclose(SPACE.restore(x, OfSet(name)), new, atol=1e-5)
    np.testing.assert_allclose(
        SPACE.restore(x.reshape(2, 3, -1), OfSet(name)), new.reshape(2, 3, -1), atol=1e-5
    )


def test_a_tensor_has_one_scale_and_training_networks_are_of_unit_size():
    x = np.concatenate([SPACE.normalise(w, OfSet(name)) for name, w in WEIGHTS.items()])
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    for place in zoos.JOINT.slices.values():
        np.testing.assert_allclose(np.mean(x[:, place] ** 2), 1, rtol=1e-4)
        assert len(np.unique(SPACE.scale[place])) == 1
    assert len(np.unique(SPACE.scale)) == len(zoos.JOINT.slices)


def test_spacing_is_the_mean_distance_of_two_networks_of_a_set():
    for name, w in WEIGHTS.items():
        x = np.asarray(SPACE.normalise(w, OfSet(name)))
        pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(x, 2)]
        np.testing.assert_allclose(SPACE.spacing[name], np.mean(pairs), rtol=1e-5)


def test_what_does_not_vary_is_not_divided_by():
    w = WEIGHTS["grey"].copy()
    first, second = list(zoos.SPECS["grey"].slices.values())[:2]
    w[:, first], w[:, second] = 0.0, 0.7
    space = NetworkSpace.fit(zoos.JOINT, {"grey": w})
    np.testing.assert_array_equal(
        space.scale[zoos.JOINT.slices[zoos.JOINT.spec("grey").names[0]]], 1
    )
    back = space.restore(space.normalise(w, OfSet("grey")), OfSet("grey"))
    np.testing.assert_allclose(back, w, atol=1e-6)
    one = NetworkSpace.fit(zoos.JOINT, {"grey": w[:1]})
    same = NetworkSpace.fit(zoos.JOINT, {"grey": w[:1].repeat(3, 0)})
    for known in (one, same):  # a unit of distance of nothing would divide by nothing
        assert known.spacing["grey"] == 1
        np.testing.assert_array_equal(known.normalise(w[:1], OfSet("grey")), 0)


def test_its_spec_and_its_affine_are_of_joint_vectors():
    assert SPACE.spec == zoos.SPECS["colour"]
    mean, scale = SPACE.affine
    weights = zoos.weights("grey")
    expected = (zoos.JOINT.embed("grey", weights) - mean) / scale
    np.testing.assert_array_equal(SPACE.normalise(weights, OfSet("grey")), expected)


def test_a_compiled_function_takes_it_as_an_argument():
    x = SPACE.normalise(WEIGHTS["grey"], OfSet("grey"))
    found = quick_jit(lambda space, x: space.restore(x, OfSet("grey")))(SPACE, x)
    np.testing.assert_allclose(found, WEIGHTS["grey"], atol=1e-5)
    moved = jax.tree.map(lambda leaf: leaf + 1, SPACE)
    assert moved.joint == SPACE.joint


def test_another_length_is_named():
    with pytest.raises(UserError, match="weights of colour must be"):
        SPACE.normalise(WEIGHTS["grey"], OfSet("colour"))
    with pytest.raises(UserError, match="no data set 'mnist'"):
        NetworkSpace.fit(zoos.JOINT, {"mnist": WEIGHTS["grey"]})


def test_the_task_loss_has_a_gradient_through_the_restored_weights():
    x1 = SPACE.normalise(WEIGHTS["colour"], OfSet("colour"))
    batch = {
        "context": OfSet("colour"),
        "images": zoos.images("colour"),
        "labels": np.arange(12) % 3,
    }

    def loss(x1, space, batch):
        weights = space.restore(x1, batch["context"])
        return space.task_loss(weights, batch).mean()

    slope = quick_jit(jax.value_and_grad(loss))
    before, gradient = slope(x1, SPACE, batch)
    size = np.abs(gradient).max()
    assert size > 1e-4
    assert slope(x1 - 0.1 * gradient / size, SPACE, batch)[0] < before


def test_a_described_space_is_built_again():
    space = model.target()
    description, arrays = space.describe()
    assert description["way"] == zoos.CLASSES
    again = NetworkSpace.build(json.loads(json.dumps(description)), arrays)
    assert again.joint == space.joint and again.class_names == space.class_names
    jax.tree.map(np.testing.assert_array_equal, again, space)
    # While it is trained it knows no conditions.
    plain = NetworkSpace.build(*SPACE.describe())
    assert plain.centres is None and plain.joint == SPACE.joint


def shown(brightness, like=None):
    condition = {"features": np.full((1, zoos.CLASSES, model.WIDTH), brightness)}
    return Support(np.zeros((3, 1)), np.arange(3), (0, 1, 2), condition, like)


def test_the_context_is_the_nearest_set_or_the_one_that_is_named():
    space = model.target()
    assert space.context(shown(-0.4)) == OfSet("grey")
    assert space.context(shown(0.4)) == OfSet("colour")
    assert space.context(shown(0.4, like="grey")) == OfSet("grey")
    assert space.restored(space.stored(OfSet("grey"))) == OfSet("grey")
    with pytest.raises(UserError, match="knows no conditions of its data sets: give `like`"):
        SPACE.context(shown(0.4))


def test_labels_are_numbers_or_names_of_a_sets_classes():
    space = model.target()
    assert space.classes([2, 0, 1], False, None) == [0, 1, 2]
    assert space.classes(["cat", "ant", "bee"], False, None) == ["ant", "bee", "cat"]
    assert space.classes(["blue", "red", "green"], False, "colour") == ["red", "green", "blue"]
    # What the user orders is taken as it is.
    assert space.classes(["z", "y", "x"], True, None) == ["z", "y", "x"]


@pytest.mark.parametrize(
    ("names", "like", "sentence"),
    [
        ([0, 1], None, "class 2 has no image in the support set; .* tell 3 classes apart"),
        (["ant", "bee"], None, "class 'cat' has no image"),
        (["ant", "red"], None, "label 'ant' is no class number below 3 and no name of a known"),
        (["ant", "bee", "cat"], "colour", "label 'ant' is no class number"),
        ([0, 1, 2, 3], None, "label 0 is no class number below 3"),
        ([0, 1, 2], "mnist", "no data set 'mnist'; those here are grey, colour"),
    ],
)
def test_other_classes_are_refused_in_one_sentence(names, like, sentence):
    with pytest.raises(UserError, match=sentence):
        model.target().classes(names, False, like)


def test_only_vectors_of_its_sets_fit():
    space, grey = model.target(), zoos.SPECS["grey"].size
    assert space.fits(np.zeros((2, grey)), 3, OfSet("grey"))
    assert not space.fits(np.zeros((2, grey)), 3, OfSet("colour"))
    assert not space.fits(np.zeros((2, grey)), 3, OfSet("mnist"))


@pytest.mark.parametrize("name", zoos.SPECS)
def test_state_dicts_are_those_of_the_same_network_in_torch(name):
    torch = pytest.importorskip("torch")
    nn, channels = torch.nn, zoos.CHANNELS[name]
    activation = {"grey": nn.Tanh, "colour": nn.GELU}[name]

    class Network(nn.Module):
        """Channels (3, 2), kernels (3, 2), the first pooled, 4 hidden units; images of 8 x 8."""

        def __init__(self):
            super().__init__()
            layers = [nn.Conv2d(channels, 3, 3), nn.MaxPool2d(2, 2), activation()]
            layers += [nn.Conv2d(3, 2, 2), activation(), nn.Flatten()]
            layers += [nn.Linear(8, 4), activation(), nn.Linear(4, zoos.CLASSES)]
            self.module_list = nn.ModuleList(layers)

        def forward(self, x):
            for layer in self.module_list:
                x = layer(x)
            return x

    images = zoos.images(name)
    for weights, state in zip(
        WEIGHTS[name], SPACE.state_dicts(WEIGHTS[name], OfSet(name)), strict=True
    ):
        network = Network()
        network.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        with torch.no_grad():
            found = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy())).numpy()
        np.testing.assert_allclose(found, zoos.SPECS[name].apply(weights, images), atol=1e-5)
