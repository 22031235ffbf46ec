"""ResNet-18 state dicts: both styles of names, the function in torch, refusals."""

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ResNet18
from flown_jax.torch_import import convert
from tests.layers.helpers import quick_jit

CONFIG = {"width": 4, "num_classes": 5, "in_channels": 2}


def torch_resnet(torch):
    """kuangliu's network, narrow, with every tensor random."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x):
            h = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(self.bn2(self.conv2(h)) + self.shortcut(x))

    class Network(nn.Module):
        def __init__(self, width, classes, channels):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            inputs = width
            for stage in (1, 2, 3, 4):
                outputs, stride = width * 2 ** (stage - 1), 1 if stage == 1 else 2
                blocks = Block(inputs, outputs, stride), Block(outputs, outputs, 1)
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))
                inputs = outputs
            self.linear = nn.Linear(inputs, classes)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.linear(functional.avg_pool2d(x, 4).flatten(1))

    torch.manual_seed(0)
    network = Network(CONFIG["width"], CONFIG["num_classes"], CONFIG["in_channels"])
    for name, value in network.state_dict().items():
        if "bn" in name or "shortcut.1" in name:
            value.copy_(torch.rand(value.shape) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return torch_resnet(pytest.importorskip("torch"))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 2, 32, 32)).astype(np.float32)


def test_computes_what_torch_computes(network, images):
    import torch

    with torch.no_grad():
        expected = network(torch.tensor(images)).numpy()
    state = network.state_dict()
    assert len(state) == 122
    module, variables = ResNet18(4, 5), convert("resnet18", state, CONFIG)
    logits = quick_jit(module.apply)(variables, np.moveaxis(images, 1, -1))
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    listed = [name for name in state if "num_batches" not in name]
    assert list(module.state_dict_names()) == listed


def test_both_styles_of_names_and_counters_left_out(network):
    state = {k: v for k, v in network.state_dict().items() if "num_batches_tracked" not in k}
    other = {
        k.replace("shortcut", "downsample").replace("linear", "fc"): v for k, v in state.items()
    }
    variables = convert("resnet18", network.state_dict(), CONFIG)
    for names in (state, other):
        jax.tree.map(np.testing.assert_array_equal, convert("resnet18", names, CONFIG), variables)
    assert all(leaf.flags["C_CONTIGUOUS"] for leaf in jax.tree.leaves(variables))


def test_refusals(network):
    state = network.state_dict()
    with pytest.raises(UserError, match=r"no entry 'layer4.1.bn2.running_var'"):
        partial = {k: v for k, v in state.items() if k != "layer4.1.bn2.running_var"}
        convert("resnet18", partial, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: layer5.0.conv1.weight"):
        convert("resnet18", state | {"layer5.0.conv1.weight": np.zeros(1)}, CONFIG)
    with pytest.raises(UserError, match=r"'linear.weight' .* \(5, 32\), not \(10, 32\)"):
        convert("resnet18", state, {"width": 4, "in_channels": 2})
    with pytest.raises(UserError, match=r"'conv1.weight' .* \(4, 2, 3, 3\), not \(4, 3, 3, 3\)"):
        convert("resnet18", state, CONFIG | {"in_channels": 3})
    # The 7x7 stem of torchvision's own ResNet-18 is another network.
    with pytest.raises(UserError, match=r"'conv1.weight' .* \(4, 2, 7, 7\), not \(4, 2, 3, 3\)"):
        convert("resnet18", state | {"conv1.weight": np.zeros((4, 2, 7, 7))}, CONFIG)
