"""Zoos in one order: functions stay, copies in other orders come out alike, the first one leads."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.weights.aligned import ZooImages, align_zoos
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.symmetries import transform
from tests.layers.helpers import quick_jit
from tests.networks import zoos
from tests.weights.test_alignment import symmetries

GREY = zoos.SPECS["grey"]
# A colour network of the same activation, that of the tests on permuted copies.
COLOUR = dataclasses.replace(zoos.SPECS["colour"], sizes=GREY.sizes)
JOINT = JointSpace.of({"one": GREY, "two": GREY, "colour": COLOUR})
SEEN = zoos.images("grey", 30)
IN_COLOUR = SEEN.repeat(3, -1)
IMAGES = {
    "one": ZooImages(SEEN, SEEN),
    "two": ZooImages(SEEN, SEEN),
    "colour": ZooImages(IN_COLOUR, IN_COLOUR),
}
NETWORKS = zoos.weights("grey", 5)


def permuted(name, seed):
    """The same networks for a set, each with its units in an order of its own."""
    spec = JOINT.spec(name)
    w = NETWORKS if spec is GREY else JOINT.embed("one", NETWORKS)
    return transform(spec, w, symmetries(spec, len(w), seed))


WEIGHTS = {"one": permuted("one", 1), "two": permuted("two", 2), "colour": permuted("colour", 3)}
REFERENCES = dict.fromkeys(WEIGHTS, 2)


def logits(spec, w, images):
    return np.asarray(quick_jit(jax.vmap(spec.apply, (0, None)))(w, images))


@pytest.mark.parametrize("rounds", [1, 2])
def test_permuted_zoos_of_the_same_networks_come_out_in_one_order(rounds):
    found = align_zoos(JOINT, WEIGHTS, REFERENCES, IMAGES, rounds=rounds)
    one = found["one"].weights
    assert np.abs(one - WEIGHTS["one"]).max() > 0.1
    np.testing.assert_allclose(found["two"].weights, one, atol=1e-6)
    np.testing.assert_allclose(found["colour"].weights, JOINT.embed("one", one), atol=1e-6)


def test_functions_stay_as_they_are():
    specs = zoos.SPECS
    weights = {name: zoos.weights(name, 4, seed=5) for name in specs}
    images = {
        "grey": ZooImages(zoos.images("grey"), zoos.images("grey")),
        "colour": ZooImages(zoos.images("colour"), zoos.images("grey").repeat(3, -1)),
    }
    found = align_zoos(zoos.JOINT, weights, {"grey": 1, "colour": 3}, images)
    for name, spec in specs.items():
        after, shown = found[name].weights, zoos.images(name, seed=9)
        assert np.mean(after != weights[name]) > 0.1
        np.testing.assert_allclose(
            logits(spec, after, shown), logits(spec, weights[name], shown), atol=1e-5
        )


def test_the_first_of_the_weights_leads():
    for order in (("one", "two", "colour"), ("two", "colour", "one"), ("colour", "two", "one")):
        weights = {name: WEIGHTS[name] for name in order}
        found = align_zoos(JOINT, weights, REFERENCES, IMAGES, rounds=1)
        leader = WEIGHTS[order[0]][2]
        for name in order:
            expected = leader
            if (name == "colour") != (order[0] == "colour"):
                convert = JOINT.embed if name == "colour" else JOINT.extract
                expected = np.asarray(convert("one", leader[None]))[0]
            np.testing.assert_allclose(found[name].weights[2], expected, atol=1e-6)


def test_nothing_else_depends_on_an_order():
    turned = [dict(reversed(d.items())) for d in (dict(JOINT.specs), REFERENCES, IMAGES)]
    joint, references, images = JointSpace.of(turned[0]), *turned[1:]
    weights = {name: WEIGHTS[name] for name in ("one", "colour", "two")}
    found = align_zoos(joint, weights, references, images)
    expected = align_zoos(JOINT, WEIGHTS, REFERENCES, IMAGES)
    for name in WEIGHTS:
        np.testing.assert_array_equal(found[name].weights, expected[name].weights)


def test_mistakes_are_named():
    small = ZooImages(IN_COLOUR, IN_COLOUR[:20])
    with pytest.raises(UserError, match="of colour take images .8, 8, 3. and those of one .8, 8"):
        align_zoos(JOINT, WEIGHTS, REFERENCES, IMAGES | {"colour": small})
    with pytest.raises(UserError, match="at least one round, not 0"):
        align_zoos(JOINT, WEIGHTS, REFERENCES, IMAGES, rounds=0)
