"""The zoos' CNNs: sizes, order of pooling and activation, order of flattening, names, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flown_jax.errors import UserError
from flown_jax.models import CNN, cnn_medium, cnn_small, get_activation
from tests.layers.helpers import quick_jit, random_variables

pytestmark = pytest.mark.fast

TINY = {"channels": (3, 2), "kernels": (3, 2), "pools": (True, False), "hidden": (4,)}


def shapes_of(module, *image_shape):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "module, image_shape, parameters",
    [
        (cnn_small(), (28, 28, 1), 2464),
        (cnn_small(), (28, 28, 3), 2864),
        (cnn_medium(), (32, 32, 1), 10565),
        (cnn_medium(), (32, 32, 3), 10853),
        (cnn_medium(num_classes=100), (32, 32, 3), 12743),
    ],
)
def test_published_sizes(module, image_shape, parameters):
    shapes = shapes_of(module, *image_shape)
    assert count(shapes["params"]) == parameters
    logits = jax.eval_shape(module.apply, shapes, jnp.zeros((2, *image_shape)))
    assert logits.shape == (2, module.num_classes)


def test_kernel_shapes_are_those_of_the_parameters():
    module = cnn_medium(hidden=(7, 5))
    params = shapes_of(module, 33, 30, 2)["params"]
    expected = module.kernel_shapes(2, module.flat_size(33, 30))
    assert {name: layer["kernel"].shape for name, layer in params.items()} == expected


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_is_pooled_before_the_activation_and_flattened_by_channel(activation):
    module = CNN(**TINY, num_classes=5, activation=activation)
    images = jax.random.normal(jax.random.key(1), (2, 9, 8, 2))
    variables = random_variables(module, images)
    logits, stages = quick_jit(module.apply, static_argnums=(2, 3))(variables, images, False, True)
    params, act = variables["params"], get_activation(activation)

    def conv(x, layer):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "VALID", dimension_numbers=layout)
        return y + layer["bias"]

    x = conv(images, params["conv_0"])[:, :6, :6]
    x = act(x.reshape(2, 3, 2, 3, 2, 3).max((2, 4)))
    np.testing.assert_allclose(stages["act_0"], x, atol=1e-5)
    x = act(conv(x, params["conv_1"]))
    np.testing.assert_allclose(stages["act_1"], x, atol=1e-5)
    rows = np.stack([x[:, i, j, c] for c in range(2) for i in range(2) for j in range(2)], -1)
    rows = act(rows @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
    np.testing.assert_allclose(stages["act_2"], rows, atol=1e-5)
    expected = rows @ params["dense_1"]["kernel"] + params["dense_1"]["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_dropout_only_in_training():
    module = CNN(**TINY, dropout=0.5)
    images = jnp.ones((2, 8, 8, 1))
    variables = random_variables(module, images)

    @quick_jit
    def run(variables, images, key):
        evaluated = [m.apply(variables, images) for m in (module, CNN(**TINY))]
        return *evaluated, module.apply(variables, images, train=True, rngs={"dropout": key})

    (evaluated, plain, first), (*_, again), (*_, other) = (
        run(variables, images, jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(evaluated, plain)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(
    "module, numbers",
    [
        (cnn_small(), [0, 3, 6, 9, 11]),
        (cnn_small(dropout=0.5), [0, 4, 8, 11, 14]),
        (cnn_medium(), [0, 4, 8, 13, 16]),
        (cnn_medium(dropout=0.5), [0, 4, 8, 13, 16]),
    ],
)
def test_names_are_the_zoos(module, numbers):
    names = module.state_dict_names()
    expected = [f"module_list.{i}.{leaf}" for i in numbers for leaf in ("weight", "bias")]
    assert list(names) == expected
    layers = ["conv_0", "conv_1", "conv_2", "dense_0", "dense_1"]
    paths = [f"params/{layer}/{leaf}" for layer in layers for leaf in ("kernel", "bias")]
    assert list(names.values()) == paths


def test_activations_are_pytorchs():
    torch = pytest.importorskip("torch")
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    modules = {
        "tanh": torch.nn.Tanh(),
        "relu": torch.nn.ReLU(),
        "leakyrelu": torch.nn.LeakyReLU(),
        "sigmoid": torch.nn.Sigmoid(),
        "silu": torch.nn.SiLU(),
        "gelu": torch.nn.GELU(),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    }
    for name, module in modules.items():
        expected = module(torch.tensor(x)).numpy()
        np.testing.assert_allclose(get_activation(name)(jnp.asarray(x)), expected, atol=1e-6)


def test_refusals():
    with pytest.raises(UserError, match=r"activation 'Tanh' is unknown; it is one of tanh, relu"):
        CNN(activation="Tanh")
    with pytest.raises(UserError, match=r"channels, kernels and pools of one length"):
        CNN(channels=(8, 6))
    with pytest.raises(UserError, match=r"images of 12x28 are too small"):
        CNN().flat_size(12, 28)
    module = cnn_medium()
    variables = random_variables(module, jnp.zeros((1, 32, 32, 1)))
    with pytest.raises(UserError, match=r"images of 28x28 give this CNN 15 inputs .* have 60"):
        module.apply(variables, jnp.zeros((1, 28, 28, 1)))
    with pytest.raises(UserError, match=r"must be \(B, H, W, C\)"):
        module.apply(variables, jnp.zeros((32, 32, 1)))
