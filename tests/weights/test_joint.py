"""Vectors of grey and colour networks in one space: nothing is lost, nothing is invented."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.weights.joint import JointSpace
from tests.layers.helpers import quick_jit
from tests.weights import small

pytestmark = pytest.mark.fast

SIZES = {"channels": (3, 2), "kernels": (3, 2), "hidden": (4,), "num_classes": 3}
GREY, COLOUR = small.spec(1, **SIZES), small.spec(3, **SIZES)
JOINT = JointSpace.of({"grey": GREY, "colour": COLOUR, "other": GREY})
IMAGES = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)


def logits(spec, w, images):
    return np.asarray(quick_jit(spec.apply)(w, images))


def test_the_widest_vectors_are_the_joint_ones():
    assert JOINT.names == ("grey", "colour", "other") and JOINT.widest == "colour"
    assert JOINT.size == COLOUR.size > GREY.size
    assert JOINT.slices == COLOUR.slices
    assert JOINT.spec("grey") == GREY
    w = small.vectors(range(2), COLOUR.size)
    np.testing.assert_array_equal(JOINT.embed("colour", w), w)
    np.testing.assert_array_equal(JOINT.extract("colour", w), w)


@pytest.mark.parametrize("name", JOINT.names)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_come_back(name, dtype):
    w = small.vectors(range(4), JOINT.spec(name).size).astype(dtype)
    joint = JOINT.embed(name, w)
    assert joint.shape == (4, JOINT.size) and joint.dtype == dtype
    np.testing.assert_array_equal(JOINT.extract(name, joint.astype(np.float32)), w)
    axes = joint.reshape(2, 2, -1)
    np.testing.assert_array_equal(JOINT.extract(name, axes), w.reshape(2, 2, -1))


def test_absent_channels_are_zero_and_all_else_is_kept():
    w = small.vectors([0], GREY.size)
    joint = JOINT.embed("grey", w)[0]
    wide, narrow = COLOUR.unflatten(joint)["params"], GREY.unflatten(w[0])["params"]
    kernel = np.array(wide["conv_0"]["kernel"])  # (k, k, channels of the images, units)
    np.testing.assert_array_equal(kernel[:, :, :1], narrow["conv_0"]["kernel"])
    assert not kernel[:, :, 1:].any()
    assert np.count_nonzero(joint) == GREY.size
    for layer in ("conv_1", "dense_0", "dense_1"):
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(wide[layer][leaf], narrow[layer][leaf])


def test_a_joint_vector_is_a_network_for_grey_and_for_colour_images():
    w = small.vectors([3], COLOUR.size)[0]
    # Read for grey images it is what the colour network does with black other channels.
    black = np.concatenate([IMAGES, np.zeros((*IMAGES.shape[:3], 2), np.float32)], axis=-1)
    np.testing.assert_allclose(
        logits(GREY, JOINT.extract("grey", w), IMAGES), logits(COLOUR, w, black), atol=1e-5
    )
    # A grey network in the joint space does not see the other channels.
    own = small.vectors([4], GREY.size)
    noise = np.random.default_rng(1).normal(size=(*IMAGES.shape[:3], 2)).astype(np.float32)
    seen = logits(COLOUR, JOINT.embed("grey", own)[0], np.concatenate([IMAGES, noise], axis=-1))
    np.testing.assert_allclose(seen, logits(GREY, own[0], IMAGES), atol=1e-5)


def test_activation_and_preprocessing_may_differ():
    other = small.spec(1, activation="gelu", inputs={"size": 8}, **SIZES)
    joint = JointSpace.of({"a": other, "b": GREY})
    w = small.vectors([0], GREY.size)
    np.testing.assert_array_equal(joint.embed("a", w), w)
    assert joint.spec("a") == other and joint.spec("b") == GREY


@pytest.mark.parametrize("grey_first", [False, True])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_classes": 4}, r"4, 4"),
        ({"channels": (4, 2)}, r"4, 1, 3, 3"),
        ({"kernels": (2, 2)}, r"3, 1, 2, 2"),
        ({"hidden": (4, 4)}, r"4, 4"),
        ({"hidden": (5,)}, r"5, 8"),
    ],
)
def test_networks_that_do_not_fit_are_named(changes, reason, grey_first):
    sets = {"colour": COLOUR, "odd": small.spec(1, **(SIZES | changes))}
    if grey_first:
        sets = dict(reversed(sets.items()))
    sentence = f"^the networks of .* and .* have no joint vector space: .*({reason}).*\\.$"
    with pytest.raises(UserError, match=sentence) as caught:
        JointSpace.of(sets)
    assert "odd" in str(caught.value) and "colour" in str(caught.value)


def test_other_mistakes_are_named():
    with pytest.raises(UserError, match="needs the spec of one data set at least"):
        JointSpace.of({})
    part = GREY.subset(lambda name: name.endswith("weight"))
    with pytest.raises(UserError, match="they are parts of networks"):
        JointSpace.of({"grey": GREY, "part": part})
    with pytest.raises(UserError, match="no data set 'mnist'; those here are grey, colour, other"):
        JOINT.spec("mnist")
    w = small.vectors(range(2), GREY.size)
    with pytest.raises(UserError, match=rf"weights of colour must be \(N, {COLOUR.size}\), not"):
        JOINT.embed("colour", w)
    with pytest.raises(UserError, match=r"weights of grey must be .* not \(\d+,\)"):
        JOINT.embed("grey", w[0])
    with pytest.raises(UserError, match=f"joint vectors have {COLOUR.size} values, not 7"):
        JOINT.extract("grey", np.zeros((2, 7)))
