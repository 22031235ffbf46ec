"""timm's ViT state dicts: the function in timm, layouts, refusals."""

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import VisionTransformer
from flown_jax.torch_import import convert
from tests.layers.helpers import quick_jit

SIZES = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
CONFIG = SIZES | {"img_size": 8}


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, 12),
        "pos_embed": (1, 5, 12),
        "patch_embed.proj.weight": (12, 3, 4, 4),
        "patch_embed.proj.bias": (12,),
    }
    for i in (0, 1):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (12,), f"blocks.{i}.{norm}.bias": (12,)}
        layers = {"attn.qkv": (36, 12), "attn.proj": (12, 12), "mlp.fc1": (48, 12)}
        for layer, shape in (layers | {"mlp.fc2": (12, 48)}).items():
            shapes |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
    shapes |= {"norm.weight": (12,), "norm.bias": (12,), "head.weight": (5, 12), "head.bias": (5,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_computes_what_timm_computes(state):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm", exc_type=ImportError)
    network = timm.models.vision_transformer.VisionTransformer(**CONFIG).eval()
    network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    assert list(VisionTransformer(**SIZES).state_dict_names()) == list(network.state_dict())
    images = np.random.default_rng(1).normal(size=(3, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images)).numpy()
    variables = convert("vit", network.state_dict(), CONFIG)
    logits = quick_jit(VisionTransformer(**SIZES).apply)(variables, np.moveaxis(images, 1, -1))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_layouts(state):
    params = convert("vit", state, CONFIG)["params"]
    qkv, patches = params["blocks_1"]["qkv"]["kernel"], params["patch_embed"]["kernel"]
    np.testing.assert_array_equal(qkv, state["blocks.1.attn.qkv.weight"].T)
    assert patches[1, 2, 0, 7] == state["patch_embed.proj.weight"][7, 0, 1, 2]
    np.testing.assert_array_equal(params["pos_embed"], state["pos_embed"])
    assert all(leaf.flags["C_CONTIGUOUS"] for leaf in jax.tree.leaves(params))


def test_refusals(state):
    with pytest.raises(UserError, match=r"no entry 'blocks.1.mlp.fc2.bias'"):
        partial = {k: v for k, v in state.items() if k != "blocks.1.mlp.fc2.bias"}
        convert("vit", partial, CONFIG)
    with pytest.raises(UserError, match=r"unknown to this network: fc_norm.weight"):
        convert("vit", state | {"fc_norm.weight": np.zeros(12)}, CONFIG)
    with pytest.raises(UserError, match=r"'pos_embed' .* \(1, 5, 12\), not \(1, 10, 12\)"):
        convert("vit", state, CONFIG | {"img_size": 12})
    with pytest.raises(UserError, match=r"model vit has no field 'patch'"):
        convert("vit", state, {"patch": 16})
