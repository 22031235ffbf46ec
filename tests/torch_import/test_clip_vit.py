"""CLIP's visual tower: the function in torch, OpenAI's and Hugging Face's names, refusals."""

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import VisionTransformer
from flown_jax.torch_import import convert
from flown_jax.torch_import.clip_vit import clip_vit_sizes
from tests.layers.helpers import quick_jit

CONFIG = {
    "input_resolution": 12,
    "patch_size": 4,
    "width": 16,
    "layers": 2,
    "heads": 4,
    "output_dim": 6,
}


def torch_tower(torch):
    """A small CLIP visual tower on torch's own attention."""
    nn = torch.nn
    width, heads = CONFIG["width"], CONFIG["heads"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
            self.ln_1 = nn.LayerNorm(width)
            self.mlp = nn.ModuleDict(
                {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
            )
            self.ln_2 = nn.LayerNorm(width)

        def forward(self, x):
            h = self.ln_1(x)
            x = x + self.attn(h, h, h, need_weights=False)[0]
            h = self.mlp["c_fc"](self.ln_2(x))
            return x + self.mlp["c_proj"](h * torch.sigmoid(1.702 * h))

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.class_embedding = nn.Parameter(torch.randn(width))
            self.positional_embedding = nn.Parameter(torch.randn(10, width))
            self.proj = nn.Parameter(torch.randn(width, CONFIG["output_dim"]))
            self.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
            self.ln_pre = nn.LayerNorm(width)
            self.transformer = nn.Module()
            blocks = nn.Sequential(*(Block() for _ in range(CONFIG["layers"])))
            self.transformer.resblocks = blocks
            self.ln_post = nn.LayerNorm(width)

        def forward(self, x):
            patches = self.conv1(x).flatten(2).transpose(1, 2)
            token = self.class_embedding.expand(len(x), 1, -1)
            x = torch.cat([token, patches], 1) + self.positional_embedding
            x = self.transformer.resblocks(self.ln_pre(x))
            return self.ln_post(x[:, 0]) @ self.proj

    torch.manual_seed(0)
    whole = nn.Module()
    whole.visual = Tower()
    for parameter in whole.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    # Small tokens, so that the eps of the first normalisation shows.
    tower = whole.visual
    for parameter in (tower.class_embedding, tower.positional_embedding, tower.conv1.weight):
        parameter.data *= 0.05
    return whole.eval()


@pytest.fixture(scope="module")
def network():
    return torch_tower(pytest.importorskip("torch"))


@pytest.fixture
def state(network):
    text = {"logit_scale": np.asarray(4.6), "transformer.resblocks.0.ln_1.weight": np.ones(8)}
    return {name: value.numpy() for name, value in network.state_dict().items()} | text


def hugging_face(state):
    """The same checkpoint in the names of Hugging Face's CLIPModel."""
    renamed = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    parts = [
        ("visual.transformer.resblocks", "vision_model.encoder.layers"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_", "layer_norm"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
    ]
    found = {"text_model.final_layer_norm.weight": np.ones(8)}
    found["vision_model.embeddings.position_ids"] = np.arange(10)[None]
    for name, value in state.items():
        if not name.startswith("visual."):
            continue
        if name == "visual.proj":
            found["visual_projection.weight"] = value.T
            continue
        new = renamed.get(name, name)
        for old, other in parts:
            new = new.replace(old, other)
        if "in_proj_" in name:
            prefix, leaf = new.split("attn.in_proj_")
            for part, piece in zip("qkv", np.split(value, 3), strict=True):
                found[f"{prefix}self_attn.{part}_proj.{leaf}"] = piece
        else:
            found[new] = value
    return found


def test_computes_what_torch_computes(network, state):
    import torch

    images = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype(np.float32)
    with torch.no_grad():
        expected = network.visual(torch.tensor(images)).numpy()
    module = VisionTransformer(**clip_vit_sizes(CONFIG))
    features = quick_jit(module.apply)(
        convert("clip_vit", state, CONFIG), np.moveaxis(images, 1, -1)
    )
    np.testing.assert_allclose(features, expected, atol=1e-4)
    assert list(module.state_dict_names()) == list(network.state_dict())


def test_hugging_faces_names(state):
    other = hugging_face(state)
    assert "vision_model.encoder.layers.1.self_attn.k_proj.bias" in other
    expected = convert("clip_vit", state, CONFIG)
    variables = convert("clip_vit", other, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert all(leaf.flags["C_CONTIGUOUS"] for leaf in jax.tree.leaves(variables))


def test_sizes():
    sizes = clip_vit_sizes({"patch_size": 16, "width": 768, "layers": 12, "output_dim": 512})
    assert (sizes["num_heads"], sizes["epsilon"], sizes["activation"]) == (12, 1e-5, "quick_gelu")
    with pytest.raises(UserError, match=r"no entry 'output_dim'"):
        clip_vit_sizes({"patch_size": 16, "width": 768, "layers": 12})


@pytest.mark.parametrize("rename", [dict, hugging_face])
def test_refusals(state, rename):
    state = rename(state)
    norm = {dict: "visual.ln_post.bias", hugging_face: "vision_model.post_layernorm.bias"}[rename]
    with pytest.raises(UserError, match=f"no entry '{norm}'"):
        convert("clip_vit", {k: v for k, v in state.items() if k != norm}, CONFIG)
    extra = norm.replace("bias", "scale")
    with pytest.raises(UserError, match=f"unknown to this network: {extra}"):
        convert("clip_vit", state | {extra: np.zeros(1)}, CONFIG)
    with pytest.raises(UserError, match=f"'{norm}' .* not \\(16,\\)"):
        convert("clip_vit", state | {norm: np.zeros(3)}, CONFIG)
    with pytest.raises(UserError, match=r"\(10, 16\), not \(17, 16\)"):
        convert("clip_vit", state, CONFIG | {"input_resolution": 16})
