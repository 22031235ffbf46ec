"""Meta-Baseline state dicts: names, shapes, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ResNet12
from flown_jax.torch_import import convert

CONFIG = {"channels": [4, 5, 6, 7]}


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    state, inputs = {}, 3
    for i, width in enumerate(CONFIG["channels"], start=1):
        convs = {"conv1": (inputs, 3), "conv2": (width, 3), "conv3": (width, 3)}
        convs["downsample.0"] = (inputs, 1)
        for name, (channels, size) in convs.items():
            state[f"encoder.layer{i}.{name}.weight"] = rng.normal(
                size=(width, channels, size, size)
            )
        for name in ("bn1", "bn2", "bn3", "downsample.1"):
            for entry in ("weight", "bias", "running_mean", "running_var"):
                state[f"encoder.layer{i}.{name}.{entry}"] = rng.uniform(1, 2, size=width)
            state[f"encoder.layer{i}.{name}.num_batches_tracked"] = np.asarray(5)
        inputs = width
    return state


def test_fits_the_module_with_and_without_classifier(state):
    for classes in (None, 9):
        if classes:
            state["classifier.linear.weight"] = np.zeros((9, 7))
            state["classifier.linear.bias"] = np.zeros(9)
        variables = convert("resnet12", state, CONFIG)
        module = ResNet12(tuple(CONFIG["channels"]), num_classes=classes)
        fresh = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, fresh)


def test_prefix_is_optional_and_the_temperature_is_left_out(state):
    bare = {name.removeprefix("encoder."): value for name, value in state.items()}
    bare["temp"] = np.asarray(10.0)
    first, second = convert("resnet12", state, CONFIG), convert("resnet12", bare, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_refusals(state):
    with pytest.raises(UserError, match=r"no entry 'layer2.bn3.bias'"):
        convert(
            "resnet12", {k: v for k, v in state.items() if not k.endswith("2.bn3.bias")}, CONFIG
        )
    with pytest.raises(UserError, match=r"has no entry layer1.conv4.weight"):
        convert("resnet12", {**state, "encoder.layer1.conv4.weight": np.zeros(1)}, CONFIG)
    with pytest.raises(UserError, match=r"layer1.conv1.weight has shape \(4, 3, 3, 3\), where"):
        convert("resnet12", state, {**CONFIG, "in_channels": 1})
