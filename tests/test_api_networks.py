"""A meta-model of whole networks in a user's hands: generate, run, carry away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flown_jax import GeneratedNetworks, MetaModel
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from tests.encoders import stand_in
from tests.networks import model, zoos


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global MODEL, NETWORKS
    MODEL = model.meta_model()
    NETWORKS = {name: MODEL.generate(*model.support(name), seed=3) for name in zoos.SPECS}


@pytest.mark.parametrize("name", zoos.SPECS)
def test_networks_are_those_of_the_set_that_is_shown(name):
    networks = NETWORKS[name]
    assert networks.context.name == name
    assert networks.weights.shape == (4, zoos.SPECS[name].size)
    assert networks.classes == (0, 1, 2) and networks.nfe == 3
    assert len(np.unique(networks.weights[:, 0])) == 4
    assert MODEL.way == 3 and not MODEL.any_way


@pytest.mark.parametrize("name", zoos.SPECS)
def test_predictions_are_the_mean_of_the_networks_probabilities(name):
    networks, (images, _) = NETWORKS[name], model.support(name, seed=1)
    spec = model.spec_of(name)
    inputs = Preprocessing.from_dict(spec.inputs_dict).apply(images)
    scores = np.stack([np.asarray(spec.apply(w, inputs)) for w in networks.weights])
    each = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(networks.predict(images, average=False), each, atol=1e-5)
    found = networks.predict(images)
    np.testing.assert_allclose(found, each.mean(0), atol=1e-5)
    assert networks.classify(images) == list(found.argmax(-1))
    # The same images as floating point.
    np.testing.assert_allclose(networks.predict(images / 255), found, atol=1e-6)


def test_images_may_have_any_size_and_colour():
    images, labels = model.support("grey", side=13)
    for shown in (images, images[..., 0], images.repeat(3, -1)):
        networks = MODEL.generate(shown, labels, samples=2)
        assert networks.context.name == "grey"
        assert networks.predict(shown).shape == (12, 3)
    colour, _ = model.support("colour", side=6)
    assert NETWORKS["grey"].predict(colour).shape == (12, 3)


def test_labels_may_be_the_names_of_a_sets_classes():
    images, labels = model.support("colour")
    names = np.asarray(["red", "green", "blue"])[labels]
    order = np.random.default_rng(0).permutation(12)
    networks = MODEL.generate(images[order], names[order], seed=3)
    assert networks.classes == ("red", "green", "blue")
    np.testing.assert_allclose(networks.weights, NETWORKS["colour"].weights, atol=1e-5)


def test_the_set_can_be_named():
    images, labels = model.support("grey")
    networks = MODEL.generate(images, labels, samples=2, like="colour")
    assert networks.context.name == "colour"
    assert networks.weights.shape == (2, zoos.SPECS["colour"].size)
    with pytest.raises(UserError, match="no data set 'mnist'"):
        MODEL.generate(images, labels, like="mnist")


def test_a_class_without_an_image_is_named():
    images, labels = model.support("grey")
    with pytest.raises(UserError, match="class 2 has no image in the support set"):
        MODEL.generate(images[:8], labels[:8])


def test_everything_comes_back_from_the_disk(tmp_path):
    MODEL.export(tmp_path / "model")
    loaded = MetaModel.load(tmp_path / "model", allow_functions=True)
    assert loaded.description == MODEL.description
    for name, networks in NETWORKS.items():
        again = loaded.generate(*model.support(name), seed=3)
        assert again.context == networks.context
        np.testing.assert_allclose(again.weights, networks.weights, atol=1e-6)
        path = networks.save(tmp_path / f"{name}.safetensors")
        stored = GeneratedNetworks.load(path, loaded)
        assert stored.classes == networks.classes and stored.context == networks.context
        np.testing.assert_array_equal(stored.weights, networks.weights)
        images, _ = model.support(name, seed=2)
        np.testing.assert_allclose(stored.predict(images), networks.predict(images), atol=1e-6)


def test_an_encoder_of_graphs_is_carried_away_with_what_is_fixed_in_it(tmp_path, monkeypatch):
    stand_in.put(monkeypatch)
    made = model.meta_model("pna")
    assert set(made.arrays["codec"]) == {"params", "constants"}
    loaded = MetaModel.load(made.export(tmp_path / "model"), allow_functions=True)
    assert loaded.description["codec"]["graph"] == {"backbone": "pna"}
    weights = made.parts.target.normalise(zoos.weights("grey"), NETWORKS["grey"].context)
    one, two = (
        m.parts.latents.codec.apply(m.parts.latents.variables, weights, method="encode").mode()
        for m in (made, loaded)
    )
    assert np.abs(one[0] - one[1]).max() > 1e-4
    np.testing.assert_array_equal(one, two)
    grey = loaded.generate(*model.support("grey"), seed=3)
    assert grey.weights.shape == NETWORKS["grey"].weights.shape


def test_networks_of_another_meta_model_are_refused(tmp_path):
    other = dataclasses.replace(NETWORKS["grey"], weights=NETWORKS["grey"].weights[:, 1:])
    with pytest.raises(UserError, match="holds no whole networks of this meta-model"):
        GeneratedNetworks.load(other.save(tmp_path / "other.safetensors"), MODEL)


def test_state_dicts_have_torchs_names_and_shapes():
    for name, networks in NETWORKS.items():
        first, *_ = states = networks.state_dicts()
        assert len(states) == 4
        assert list(first) == list(zoos.SPECS[name].names)
        assert first["module_list.0.weight"].shape == (3, zoos.CHANNELS[name], 3, 3)
        flat = np.concatenate([value.ravel() for value in first.values()])
        np.testing.assert_array_equal(flat, networks.weights[0])


def test_without_a_condition_networks_are_drawn_for_nothing(tmp_path):
    made = model.meta_model(conditional=False)
    assert not made.conditional and model.meta_model().conditional
    found = made.generate(samples=3, like="colour", seed=1)
    assert found.weights.shape == (3, model.spec_of("colour").size)
    assert found.classes == ("red", "green", "blue")
    images, labels = model.support("colour", side=5)
    probabilities = found.predict(images)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    made.export(tmp_path / "model")
    again = MetaModel.load(tmp_path / "model").generate(samples=3, like="colour", seed=1)
    np.testing.assert_array_equal(again.weights, found.weights)
    found.save(tmp_path / "networks.safetensors")
    stored = GeneratedNetworks.load(tmp_path / "networks.safetensors", made)
    np.testing.assert_array_equal(stored.weights, found.weights)
    with pytest.raises(UserError, match="without a condition: give no images, labels or class"):
        made.generate(images, labels)
    with pytest.raises(UserError, match="like names the data set .* wanted: grey, colour"):
        made.generate(samples=2)
    for sees in (made.features, lambda _: made.with_encoder(model.meta_model().parts.encoder)):
        with pytest.raises(UserError, match="without a condition: it sees no images"):
            sees(images)
    with pytest.raises(UserError, match="for a support set: give images and labels"):
        model.meta_model().generate(images)
