"""Networks that are the same function in another scale, order or sign are found as copies."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.evaluation import novelty
from flown_jax.weights.canonical import canonical
from flown_jax.weights.matching import matched_distances
from flown_jax.weights.symmetries import hidden_layers, transform
from tests.weights import small
from tests.weights.test_alignment import IMAGES, SPEC, logits, networks, symmetries

SIZES = {"channels": (5, 4), "hidden": (6, 5), "num_classes": 3}
LAYERS = ("conv_0", "conv_1", "dense_0", "dense_1", "dense_2")


def spec_of(activation):
    return small.spec(activation=activation, **SIZES)


def changed(spec, vector, change):
    """The vector after `change(params)` of a copy of its layers, {name: {kernel, bias}}."""
    params = spec.unflatten(jnp.asarray(vector))["params"]
    params = {
        name: {part: np.array(value, np.float64) for part, value in layer.items()}
        for name, layer in params.items()
    }
    change(params)
    return np.asarray(spec.flatten({"params": params}), np.float32)


def behind(params, layer):
    """The kernel that a layer's units feed, as (positions, units, outputs), and its bias."""
    following = params[LAYERS[LAYERS.index(layer) + 1]]
    kernel, units = following["kernel"], len(params[layer]["bias"])
    if layer == "conv_1":  # flattened as PyTorch does: channel, row, column
        return kernel.reshape(units, -1, kernel.shape[-1]).swapaxes(0, 1), following["bias"]
    return kernel.reshape(-1, units, kernel.shape[-1]), following["bias"]


def rescaled(spec, vector, factors, layers=LAYERS[:-1]):
    """The units' weights times exp(-factors to factors), those behind divided."""
    rng = np.random.default_rng(2)

    def change(params):
        for name in layers:
            a = np.exp(rng.uniform(-factors, factors, len(params[name]["bias"])))
            params[name]["kernel"] *= a
            params[name]["bias"] *= a
            behind(params, name)[0][:] /= a[:, None]

    return changed(spec, vector, change)


def ratio(spec, copies, zoo):
    """nn of the copies by the yardstick of the zoo, whose last four are held out."""
    train, held_out = zoo[:-4], zoo[-4:]
    unit = novelty.yardstick(
        matched_distances(spec, held_out, train, IMAGES),
        matched_distances(spec, train, train, IMAGES),
    )
    return novelty.nearest_ratio(matched_distances(spec, copies, train, IMAGES), unit)


@pytest.mark.parametrize("activation", ["relu", "leakyrelu"])
def test_rescaled_copies_in_any_order_are_copies(activation):
    spec = spec_of(activation)
    assert all(layer.scales and not layer.signs for layer in hidden_layers(spec))
    zoo, others = networks(spec, 9), networks(spec, 2, seed=1)
    copies = np.stack(
        [
            rescaled(spec, zoo[0], 1.5),
            rescaled(spec, zoo[1], 1.5, ("conv_1",)),  # the flattened maps behind it
            rescaled(spec, zoo[2], 6.0, ("dense_0", "dense_1")),
        ]
    )
    np.testing.assert_allclose(
        logits(spec, copies, IMAGES), logits(spec, zoo[:3], IMAGES), rtol=1e-3, atol=1e-4
    )
    assert np.linalg.norm(copies - zoo[:3], axis=1).min() > 0.5
    copies = np.concatenate([copies, transform(spec, copies, symmetries(spec, 3))])
    np.testing.assert_allclose(ratio(spec, copies, zoo), 0, atol=1e-4)
    strangers = np.stack([rescaled(spec, each, 1.5) for each in others])
    assert not novelty.copies(ratio(spec, strangers, zoo)).any()
    # Scale is no yardstick: a zoo of rescaled networks has the same distances.
    zoo_too = np.stack([rescaled(spec, each, 1.5) for each in zoo])
    np.testing.assert_allclose(
        matched_distances(spec, zoo_too, zoo_too, IMAGES),
        matched_distances(spec, zoo, zoo, IMAGES),
        atol=1e-4,
    )


def test_the_canonical_form_is_the_same_network_with_the_smallest_norm():
    spec = spec_of("relu")
    zoo = networks(spec, 3)
    found = canonical(spec, zoo)
    assert found.dtype == np.float32
    probabilities = [logits(spec, w, IMAGES) for w in (zoo, found)]
    apart = np.ptp(probabilities[0] - probabilities[1], axis=-1)  # a constant is added to all
    np.testing.assert_allclose(apart, 0, atol=1e-5)

    def check(params):
        for name in LAYERS[:-1]:
            kernel, bias = params[name]["kernel"], params[name]["bias"]
            incoming = (kernel.reshape(-1, len(bias)) ** 2).sum(0) + bias**2
            np.testing.assert_allclose(incoming, (behind(params, name)[0] ** 2).sum((0, 2)), 1e-4)
        for part in ("kernel", "bias"):
            np.testing.assert_allclose(params["dense_2"][part].mean(-1), 0, atol=1e-6)

    for each in found:
        changed(spec, each, check)
    np.testing.assert_allclose(canonical(spec, found), found, atol=1e-5)
    assert np.all(np.linalg.norm(found, axis=1) < np.linalg.norm(zoo, axis=1))


def test_units_that_nothing_comes_of_are_nothing():
    spec = spec_of("relu")
    zoo = networks(spec, 6)

    def cut(params):
        """Units without outputs, whose inputs are free, or without inputs."""
        behind(params, "conv_0")[0][:, 1] = 0
        behind(params, "dense_0")[0][:, 2] = 0
        params["dense_1"]["kernel"][:, 3] = params["dense_1"]["bias"][3] = 0

    def other(params):
        cut(params)
        params["conv_0"]["kernel"][..., 1] *= -3
        params["dense_0"]["bias"][2] = 7
        behind(params, "dense_1")[0][:, 3] += 1

    zoo[0] = changed(spec, zoo[0], cut)
    copy = changed(spec, zoo[0], other)
    np.testing.assert_allclose(*(logits(spec, w[None], IMAGES) for w in (copy, zoo[0])), atol=1e-5)
    np.testing.assert_allclose(ratio(spec, copy[None], zoo), 0, atol=1e-4)
    assert not canonical(spec, np.zeros_like(zoo)).any()


def test_copies_with_dead_units_are_matched():
    spec = spec_of("relu")
    zoo = networks(spec, 6)

    def kill(params):
        params["conv_0"]["bias"][:3] -= 30
        params["dense_0"]["bias"][:2] -= 30

    zoo[0] = changed(spec, zoo[0], kill)
    (copy,) = transform(spec, rescaled(spec, zoo[0], 1.0)[None], symmetries(spec, 1))
    np.testing.assert_allclose(ratio(spec, copy[None], zoo), 0, atol=1e-4)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_copies_with_other_signs_are_copies(activation):
    spec = spec_of(activation)
    layers = hidden_layers(spec)
    assert [(layer.signs or layer.mirrors) for layer in layers] == [False, True, True, True]
    zoo, rng = networks(spec, 8), np.random.default_rng(3)

    def flip(params):
        for layer in layers[1:]:
            s = rng.choice([-1.0, 1.0], layer.units)
            params[layer.name]["kernel"] *= s
            params[layer.name]["bias"] *= s
            kernel, bias = behind(params, layer.name)
            if activation == "sigmoid":  # s(-x) = 1 - s(x)
                bias += kernel[:, s < 0].sum((0, 1))
            kernel[:] *= s[:, None]

    copies = np.stack([changed(spec, each, flip) for each in zoo[:3]])
    np.testing.assert_allclose(*(logits(spec, w, IMAGES) for w in (copies, zoo[:3])), atol=1e-5)
    assert np.linalg.norm(copies - zoo[:3], axis=1).min() > 0.5
    orders = [
        type(each)(each.permutations, tuple(np.ones_like(s) for s in each.signs))
        for each in symmetries(spec, 3)
    ]
    np.testing.assert_allclose(ratio(spec, copies, zoo), 0, atol=1e-4)
    np.testing.assert_allclose(ratio(spec, transform(spec, copies, orders), zoo), 0, atol=1e-4)
    assert not novelty.copies(ratio(spec, networks(spec, 2, seed=1), zoo)).any()


def test_a_constant_added_to_all_logits_is_no_difference():
    zoo = networks(SPEC, 7)

    def shift(params):
        params["dense_1"]["kernel"] += np.linspace(-1, 1, 6)[:, None]
        params["dense_1"]["bias"] += 5

    copy = changed(SPEC, zoo[0], shift)
    apart = logits(SPEC, copy[None], IMAGES) - logits(SPEC, zoo[:1], IMAGES)
    np.testing.assert_allclose(np.ptp(apart, axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(ratio(SPEC, copy[None], zoo), 0, atol=1e-4)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu"])
def test_nothing_else_is_changed(activation):
    spec = spec_of(activation)
    assert not any(layer.scales or layer.mirrors for layer in hidden_layers(spec))
    zoo = networks(spec, 2)
    found = canonical(spec, zoo)
    for name, place in spec.slices.items():
        if name not in spec.names[-2:]:
            np.testing.assert_array_equal(found[:, place], zoo[:, place])
    # For a reason: rescaled units are another function.
    other = rescaled(spec, zoo[0], 1.5)
    assert np.abs(logits(spec, other[None], IMAGES) - logits(spec, zoo[:1], IMAGES)).max() > 0.1


def test_networks_that_are_none_are_refused():
    zoo = networks(SPEC, 2)
    zoo[1, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        matched_distances(SPEC, zoo, zoo, IMAGES)
