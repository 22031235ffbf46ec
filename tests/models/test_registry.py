"""Models by name: round trips through JSON, subsets by name, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import (
    CNN,
    MLP,
    ConvNeXt,
    ResNet12,
    ResNet18,
    VisionTransformer,
    cnn_medium,
    last_norms,
    registry,
)

pytestmark = pytest.mark.fast

MODULES = [
    CNN(),
    cnn_medium(activation="gelu", num_classes=100, dropout=0.5),
    ResNet18(width=8, names="torchvision"),
    ResNet12((4, 5)),
    ResNet12((4, 5), num_classes=7),
    VisionTransformer(form="clip", epsilon=1e-5, activation="quick_gelu"),
    ConvNeXt(depths=(1, 2), dims=(3, 4)),
    MLP((5,), activation="tanh"),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_round_trip(module):
    name, sizes = registry.describe(module)
    assert registry.build(name, json.loads(json.dumps(sizes))) == module
    assert "dtype" not in sizes


def test_equal_networks_have_equal_descriptions():
    plain = registry.describe(CNN())
    odd = CNN(channels=[8, 6, 4], dropout=0, num_classes=np.int64(10), dtype=jnp.bfloat16)
    assert json.dumps(registry.describe(odd)) == json.dumps(plain)
    assert registry.describe(registry.build("cnn", {"hidden": [20], "dropout": 0})) == plain


@pytest.mark.parametrize("name", registry.MODELS)
def test_precision_is_of_the_computation_not_of_the_parameters(name):
    sizes = {"resnet12": {"channels": [2, 2]}, "convnext": {"depths": [1], "dims": [4]}}
    module = registry.build(name, sizes.get(name, {})).clone(dtype=jnp.bfloat16)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(module.apply, shapes, images).dtype == jnp.bfloat16


def test_resnet12_names_cover_every_variable_once():
    module = ResNet12((4, 5), num_classes=3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    paths = [
        "/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    ]
    names = module.state_dict_names()
    assert sorted(names.values()) == sorted(paths)
    assert list(names)[:2] == ["encoder.layer1.conv1.weight", "encoder.layer1.bn1.weight"]
    assert "classifier.linear.weight" not in ResNet12((4, 5)).state_dict_names()


@pytest.mark.parametrize(
    "name, module, names, size",
    [
        (
            "resnet18",
            ResNet18(),
            [f"layer4.1.{bn}.{leaf}" for bn in ("bn1", "bn2") for leaf in ("weight", "bias")],
            2048,
        ),
        (
            "vit",
            VisionTransformer(),
            ["blocks.11.norm2.weight", "blocks.11.norm2.bias", "norm.weight", "norm.bias"],
            3072,
        ),
        (
            "convnext",
            ConvNeXt(),
            [
                "stages.3.blocks.2.norm.weight",
                "stages.3.blocks.2.norm.bias",
                "head.norm.weight",
                "head.norm.bias",
            ],
            3072,
        ),
    ],
)
def test_subsets_of_normalisations(name, module, names, size):
    assert list(last_norms(name, module)) == names
    side = 224 if name == "vit" else 32
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    paths = module.state_dict_names()
    total = 0
    for torch_name in names:
        leaf = shapes
        for key in paths[torch_name].split("/"):
            leaf = leaf[key]
        total += leaf.size
    assert total == size


def test_refusals():
    with pytest.raises(UserError, match=r"model 'lenet' is unknown; it is one of cnn, resnet18"):
        registry.build("lenet", {})
    with pytest.raises(UserError, match=r"model cnn has no field 'width'; it has channels"):
        registry.build("cnn", {"width": 3})
    with pytest.raises(UserError, match=r"channels of the model cnn must be a list, not 8"):
        registry.build("cnn", {"channels": 8})
    with pytest.raises(UserError, match=r"channels of the model cnn must be of type int, not '8'"):
        registry.build("cnn", {"channels": ["8", "6", "4"]})
    with pytest.raises(UserError, match=r"num_classes of the model vit must be of type int, not 1"):
        registry.build("vit", {"num_classes": 1.5})
    with pytest.raises(UserError, match=r"Dense is none of the base models"):
        registry.describe(nn.Dense(3))
    with pytest.raises(UserError, match=r"no subset of normalisations is defined for 'cnn'"):
        last_norms("cnn", CNN())
