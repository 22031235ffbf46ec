"""ConvNeXt: sizes, names, layer scale, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import ConvNeXt
from tests.layers.helpers import quick_jit, random_variables

SMALL = {"depths": (1, 2), "dims": (4, 6), "num_classes": 3}


@pytest.mark.parametrize("classes, parameters", [(10, 27_827_818), (100, 27_897_028)])
def test_published_sizes(classes, parameters):
    module = ConvNeXt(num_classes=classes)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters
    apply = functools.partial(module.apply, return_stages=True)
    _, stages = jax.eval_shape(apply, shapes, jnp.zeros((2, 224, 224, 3)))
    sides = {name: stage.shape[1] for name, stage in stages.items()}
    assert sides == {"stem": 56, "stage_0": 56, "stage_1": 28, "stage_2": 14, "stage_3": 7}


def test_names_cover_every_variable_once():
    module = ConvNeXt(**SMALL)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    paths = [
        "/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    ]
    names = list(module.state_dict_names())
    assert sorted(module.state_dict_names().values()) == sorted(paths)
    assert names[4:7] == [
        "stages.0.blocks.0.gamma",
        "stages.0.blocks.0.conv_dw.weight",
        "stages.0.blocks.0.conv_dw.bias",
    ]


def test_layer_scale_weighs_what_a_block_adds():
    module = ConvNeXt(**SMALL)
    images = jax.random.normal(jax.random.key(0), (2, 17, 16, 1))
    variables = random_variables(module, images)
    apply = quick_jit(functools.partial(module.apply, return_stages=True))

    def first_block(scale):
        block = variables["params"]["stage_0_block_0"]
        block = block | {"gamma": scale * block["gamma"]}
        changed = {"params": variables["params"] | {"stage_0_block_0": block}}
        stages = apply(changed, images)[1]
        return np.asarray(stages["stage_0"] - stages["stem"])

    np.testing.assert_array_equal(first_block(0.0), 0.0)
    np.testing.assert_allclose(first_block(2.0), 2 * first_block(1.0), atol=1e-5)
    assert np.abs(first_block(1.0)).max() > 1e-2


def test_refusals():
    with pytest.raises(UserError, match=r"depths and dims of one length"):
        ConvNeXt(depths=(1, 1))
    module = ConvNeXt(**SMALL)
    variables = random_variables(module, jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(UserError, match=r"sides of at least 8"):
        module.apply(variables, jnp.zeros((1, 8, 7, 1)))
