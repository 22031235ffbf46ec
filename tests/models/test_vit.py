"""Vision transformers: sizes, names, what the class token may depend on, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import VisionTransformer
from tests.layers.helpers import quick_jit, random_variables

SMALL = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}


def shapes_of(module, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


@pytest.mark.parametrize(
    "fields, parameters",
    [
        ({}, 85_806_346),
        ({"num_classes": 100}, 85_875_556),
        # CLIP's ViT-B/16 tower: no head and no patch bias, a further norm and 768 x 512.
        ({"form": "clip", "num_classes": 512}, 85_798_656 - 768 + 1536 + 768 * 512),
    ],
)
def test_published_sizes(fields, parameters):
    shapes = shapes_of(VisionTransformer(**fields), 224)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters


@pytest.mark.parametrize("form", ["timm", "clip"])
def test_names_cover_every_variable_once(form):
    module = VisionTransformer(**SMALL, form=form)
    paths = [
        "/".join(key.key for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes_of(module, 8))
    ]
    names = module.state_dict_names()
    assert sorted(names.values()) == sorted(paths)
    first = {"timm": "cls_token", "clip": "visual.class_embedding"}[form]
    last = {"timm": "head.bias", "clip": "visual.ln_post.bias"}[form]
    assert (next(iter(names)), list(names)[-1]) == (first, last)


@pytest.mark.parametrize("form", ["timm", "clip"])
def test_patches_are_a_set_once_they_have_positions(form):
    module = VisionTransformer(**SMALL, form=form)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = random_variables(module, images)
    apply = quick_jit(functools.partial(module.apply, return_stages=True))
    out, stages = apply(variables, images)
    assert stages["tokens"].shape == (2, 5, 12)
    # Left and right halves exchanged: patches 0, 1, 2, 3 become 1, 0, 3, 2.
    swapped = jnp.concatenate([images[:, :, 4:], images[:, :, :4]], axis=2)
    name = {"timm": "pos_embed", "clip": "positional_embedding"}[form]
    order = np.asarray([0, 2, 1, 4, 3])
    positions = np.take(variables["params"][name], order, axis=-2)
    moved = {"params": variables["params"] | {name: positions}}
    np.testing.assert_allclose(apply(moved, swapped)[0], out, atol=2e-5)
    assert np.abs(apply(variables, swapped)[0] - out).max() > 1e-2


def test_refusals():
    with pytest.raises(UserError, match=r"form must be one of timm, clip, not 'dino'"):
        VisionTransformer(form="dino")
    with pytest.raises(UserError, match=r"5 heads cannot divide a width of 12"):
        VisionTransformer(**(SMALL | {"num_heads": 5}))
    with pytest.raises(UserError, match=r"activation 'elu' is unknown"):
        VisionTransformer(activation="elu")
    module = VisionTransformer(**SMALL)
    variables = random_variables(module, jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(UserError, match=r"sides that are multiples of the patch, 4"):
        module.apply(variables, jnp.zeros((1, 8, 9, 1)))
    with pytest.raises(UserError, match=r"have 6 patches, where the network has positions for 4"):
        module.apply(variables, jnp.zeros((1, 8, 12, 1)))
