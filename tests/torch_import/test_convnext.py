"""timm's ConvNeXt state dicts: the function in torch and timm, layouts, refusals."""

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ConvNeXt
from flown_jax.torch_import import convert
from tests.layers.helpers import quick_jit

CONFIG = {"depths": (1, 1, 1, 2), "dims": (4, 4, 6, 6), "num_classes": 3}


def torch_convnext(torch):
    """The published network in timm's names, in NCHW."""
    nn = torch.nn

    class Norm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.gamma = nn.Parameter(torch.rand(width))
            self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.mlp = nn.ModuleDict(
                {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
            )

        def forward(self, x):
            h = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
            h = self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](h)))
            return x + (h * self.gamma).permute(0, 3, 1, 2)

    class Network(nn.Module):
        def __init__(self, depths, dims, num_classes):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), Norm(dims[0], eps=1e-6))
            self.stages = nn.ModuleList()
            for s, (depth, width) in enumerate(zip(depths, dims, strict=True)):
                stage = nn.Module()
                if s:
                    conv = nn.Conv2d(dims[s - 1], width, 2, 2)
                    stage.downsample = nn.Sequential(Norm(dims[s - 1], eps=1e-6), conv)
                stage.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
                self.stages.append(stage)
            norm, fc = nn.LayerNorm(dims[-1], eps=1e-6), nn.Linear(dims[-1], num_classes)
            self.head = nn.ModuleDict({"norm": norm, "fc": fc})

        def forward(self, x):
            x = self.stem(x)
            for stage in self.stages:
                x = stage.downsample(x) if hasattr(stage, "downsample") else x
                x = stage.blocks(x)
            return self.head["fc"](self.head["norm"](x.mean((2, 3))))

    torch.manual_seed(0)
    network = Network(**CONFIG)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return torch_convnext(pytest.importorskip("torch"))


def assert_same_logits(network):
    import torch

    images = np.random.default_rng(1).normal(size=(2, 3, 37, 32)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images)).numpy()
    variables = convert("convnext", network.state_dict(), CONFIG)
    logits = quick_jit(ConvNeXt(**CONFIG).apply)(variables, np.moveaxis(images, 1, -1))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_computes_what_torch_computes(network):
    assert_same_logits(network)
    assert list(ConvNeXt(**CONFIG).state_dict_names()) == list(network.state_dict())


def test_computes_what_timm_computes(network):
    timm = pytest.importorskip("timm", exc_type=ImportError)
    other = timm.models.convnext.ConvNeXt(**CONFIG).eval()
    other.load_state_dict(network.state_dict())
    assert_same_logits(other)
    assert list(ConvNeXt(**CONFIG).state_dict_names()) == list(other.state_dict())


def test_layouts(network):
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    params = convert("convnext", state, CONFIG)["params"]
    depthwise = params["stage_3_block_1"]["conv_dw"]["kernel"]
    assert depthwise.shape == (7, 7, 1, 6)
    assert depthwise[2, 5, 0, 3] == state["stages.3.blocks.1.conv_dw.weight"][3, 0, 2, 5]
    assert all(leaf.flags["C_CONTIGUOUS"] for leaf in jax.tree.leaves(params))


def test_refusals(network):
    state = network.state_dict()
    with pytest.raises(UserError, match=r"no entry 'stages.3.downsample.0.weight'"):
        partial = {k: v for k, v in state.items() if k != "stages.3.downsample.0.weight"}
        convert("convnext", partial, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: stages.3.blocks.2.gamma"):
        convert("convnext", state | {"stages.3.blocks.2.gamma": np.zeros(6)}, CONFIG)
    with pytest.raises(UserError, match=r"'head.fc.weight' .* \(3, 6\), not \(7, 6\)"):
        convert("convnext", state, CONFIG | {"num_classes": 7})
