"""ResNet-18: sizes, modes, names, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ResNet18
from tests.layers.helpers import quick_jit, random_variables


@pytest.fixture(scope="module")
def module():
    return ResNet18(width=2, num_classes=3)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (3, 16, 12, 1))


@pytest.fixture(scope="module")
def variables(module, images):
    variables = random_variables(module, images)
    statistics = jax.tree_util.tree_map_with_path(_positive, variables["batch_stats"])
    return variables | {"batch_stats": statistics}


def _positive(path, leaf):
    return np.abs(leaf) + 0.5 if path[-1].key == "var" else leaf


@pytest.mark.parametrize("classes, parameters", [(10, 11_173_962), (100, 11_220_132)])
def test_published_size(classes, parameters):
    module = ResNet18(num_classes=classes)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"params": parameters, "batch_stats": 9_600}
    apply = functools.partial(module.apply, return_stages=True)
    logits, stages = jax.eval_shape(apply, shapes, jnp.zeros((2, 32, 32, 3)))
    assert logits.shape == (2, classes)
    assert [s.shape[1:] for s in stages.values()] == [
        (32, 32, 64),
        (16, 16, 128),
        (8, 8, 256),
        (4, 4, 512),
    ]


def test_names_cover_every_variable_once():
    module = ResNet18(num_classes=5)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    paths = [
        "/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    ]
    names = module.state_dict_names()
    assert sorted(names.values()) == sorted(paths)
    # 20 counters, num_batches_tracked, make up the 122 entries of the state dict.
    assert len(names) == 102
    other = ResNet18(num_classes=5, names="torchvision").state_dict_names()
    assert list(other.values()) == list(names.values())
    renamed = [n.replace("shortcut", "downsample").replace("linear", "fc") for n in names]
    assert list(other) == renamed


def test_an_image_does_not_depend_on_its_batch(module, variables, images):
    apply = quick_jit(module.apply)
    together = apply(variables, images)
    np.testing.assert_allclose(apply(variables, images[1:2]), together[1:2], rtol=1e-5)
    np.testing.assert_allclose(apply(variables, images[::-1]), together[::-1], rtol=1e-5)


def test_training_normalises_by_the_batch_and_moves_the_statistics(module, variables, images):
    apply = quick_jit(functools.partial(module.apply, train=True, mutable=["batch_stats"]))
    logits, updates = apply(variables, images)
    shifted, _ = apply(variables, 3 * images)
    # Only the eps of BatchNorm sees the scale.
    np.testing.assert_allclose(shifted, logits, atol=1e-3)
    kernel = variables["params"]["conv1"]["kernel"]
    maps = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    new, old = updates["batch_stats"]["bn1"], variables["batch_stats"]["bn1"]
    for leaf, value in {"mean": maps.mean((0, 1, 2)), "var": maps.var((0, 1, 2))}.items():
        np.testing.assert_allclose(new[leaf], 0.9 * old[leaf] + 0.1 * value, atol=1e-5)


def test_refusals(module, variables, images):
    with pytest.raises(UserError, match=r"names must be one of cifar, torchvision, not 'timm'"):
        ResNet18(names="timm")
    with pytest.raises(UserError, match=r"must be \(B, H, W, C\)"):
        module.apply(variables, images[0])
