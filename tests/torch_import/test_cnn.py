"""State dicts of the zoos' CNNs: numbered and ordered names, the function in torch, refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import CNN
from flown_jax.torch_import import convert

CONFIG = {"channels": [3, 2], "kernels": [3, 2], "pools": [True, False], "hidden": [4]}
# Images of 8x8 with 2 channels: 8 - 6 - 3 - 2, so that 2 * 2 * 2 values are flattened.
SHAPES = [(3, 2, 3, 3), (2, 3, 2, 2), (4, 8), (10, 4)]


def state_of(*names):
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in zip(names, SHAPES, strict=True):
        state[f"{name}.weight"] = rng.normal(size=shape)
        state[f"{name}.bias"] = rng.normal(size=shape[0])
    return state


@pytest.fixture
def state():
    return state_of(*(f"module_list.{i}" for i in (0, 3, 6, 10)))


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for layer, leaves in first["params"].items():
        for leaf, value in leaves.items():
            np.testing.assert_array_equal(value, second["params"][layer][leaf])


def test_computes_what_torch_computes(state):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers = [
        nn.Conv2d(2, 3, 3),
        nn.MaxPool2d(2, 2),
        nn.GELU(),
        nn.Conv2d(3, 2, 2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(8, 4),
        nn.GELU(),
        nn.Linear(4, 10),
    ]
    network = nn.Sequential(*layers)
    values = [torch.tensor(value, dtype=torch.float32) for value in state.values()]
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    images = np.random.default_rng(1).normal(size=(3, 2, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images)).numpy()
    config = CONFIG | {"activation": "gelu"}
    module = CNN(**{k: tuple(v) for k, v in CONFIG.items()}, activation="gelu")
    for names in (network.state_dict(), state):  # torch's tensors, and arrays
        logits = module.apply(convert("cnn", names, config), np.moveaxis(images, 1, -1))
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_numbers_may_move_and_come_in_any_order(state):
    expected = convert("cnn", state, CONFIG)
    moved = state_of(*(f"module_list.{i}" for i in (0, 4, 8, 11)))
    assert_equal(convert("cnn", moved, CONFIG), expected)
    # Files sorted by name have 10 before 3 and biases before weights.
    assert_equal(convert("cnn", dict(sorted(state.items())), CONFIG), expected)
    assert_equal(convert("cnn", state_of("a.conv", "b.conv", "fc", "head"), CONFIG), expected)
    for path in (("conv_0", "kernel"), ("dense_0", "kernel")):
        leaf = expected["params"][path[0]][path[1]]
        assert leaf.flags["C_CONTIGUOUS"] and leaf.dtype == np.float32


def test_sizes_of_the_images(state):
    sizes = {"in_channels": 2, "image_size": 8}
    assert_equal(convert("cnn", state, CONFIG | sizes), convert("cnn", state, CONFIG))
    with pytest.raises(UserError, match=r"'module_list.0.weight' .* \(3, 2, 3, 3\), not \(3, 1, 3"):
        convert("cnn", state, CONFIG | {"in_channels": 1})
    with pytest.raises(UserError, match=r"'module_list.6.weight' .* \(4, 8\), not \(4, 18\)"):
        convert("cnn", state, CONFIG | {"image_size": 10})


def test_refusals(state):
    with pytest.raises(UserError, match=r"no entry 'module_list.3.bias', expected with shape \(2,"):
        convert("cnn", {k: v for k, v in state.items() if k != "module_list.3.bias"}, CONFIG)
    with pytest.raises(UserError, match=r"no entry 'module_list.0.weight'"):
        convert("cnn", {k: v for k, v in state.items() if k != "module_list.0.weight"}, CONFIG)
    with pytest.raises(UserError, match=r"3 layers \(module_list.0, .*\), where this CNN has 4"):
        convert("cnn", {k: v for k, v in state.items() if ".3." not in k}, CONFIG)
    with pytest.raises(UserError, match=r"5 layers .*module_list.12\), where this CNN has 4"):
        convert("cnn", state | {"module_list.12.weight": np.zeros((2, 10))}, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: module_list.1.running_mean"):
        convert("cnn", state | {"module_list.1.running_mean": np.zeros(3)}, CONFIG)
    with pytest.raises(UserError, match=r"'module_list.6.weight' .* \(4, 9\), not \(4, 8\)"):
        convert("cnn", state | {"module_list.6.weight": np.zeros((4, 9))}, CONFIG)
    with pytest.raises(UserError, match=r"'module_list.10.bias' .* \(\), not \(10,\)"):
        convert("cnn", state | {"module_list.10.bias": jnp.zeros(())}, CONFIG)
    with pytest.raises(UserError, match=r"model cnn has no field 'chanels'"):
        convert("cnn", state, {"chanels": [3, 2]})
    with pytest.raises(UserError, match=r"has 0 layers"):
        convert("cnn", {}, CONFIG)
