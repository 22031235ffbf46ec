"""CAML checkpoints: names, shapes, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.conditioning import CAML
from flown_jax.errors import UserError
from flown_jax.torch_import import convert

CONFIG = {
    "image_dim": 6,
    "label_dim": 4,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_dim": 7,
    "num_classes": 3,
}


@pytest.fixture
def state():
    width, shapes = 10, {"unk_emb": (1, 1, 4), "elmes_scale": (1,), "label_elmes": (3, 4)}
    for i in range(CONFIG["num_layers"]):
        block = f"encoder.layers.encoder_layer_{i}"
        shapes |= {
            f"{block}.self_attention.in_proj_weight": (3 * width, width),
            f"{block}.self_attention.in_proj_bias": (3 * width,),
            f"{block}.self_attention.out_proj.weight": (width, width),
            f"{block}.self_attention.out_proj.bias": (width,),
            f"{block}.mlp.0.weight": (7, width),
            f"{block}.mlp.0.bias": (7,),
            f"{block}.mlp.3.weight": (width, 7),
            f"{block}.mlp.3.bias": (width,),
        }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    shapes |= {"encoder.ln.weight": (width,), "encoder.ln.bias": (width,)}
    shapes["output_proj.weight"] = (3, width)
    rng = np.random.default_rng(0)
    return {
        f"transformer_encoder.{name}": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_fits_the_module(state):
    variables = convert("caml", state, CONFIG)
    module = CAML(num_classes=3, label_dim=4, num_layers=2, num_heads=2, mlp_dim=7, feature_dim=6)
    fresh = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((3, 6)), jnp.arange(3), jnp.zeros((2, 6))
    )
    shapes = jax.tree.map(lambda x: x.shape, fresh["params"])
    assert jax.tree.map(np.shape, variables["params"]) == shapes
    table = state["transformer_encoder.label_elmes"]
    np.testing.assert_array_equal(variables["constants"]["elmes"], table)


def test_prefix_is_optional_and_the_image_encoder_is_left_out(state):
    bare = {name.removeprefix("transformer_encoder."): value for name, value in state.items()}
    bare["feature_extractor.blocks.0.weight"] = np.zeros(3)
    first, second = convert("caml", state, CONFIG), convert("caml", bare, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_refusals(state):
    name = "encoder.layers.encoder_layer_1.mlp.0.bias"
    with pytest.raises(UserError, match=r"no entry 'encoder.layers.encoder_layer_1.mlp.0.bias'"):
        convert("caml", {k: v for k, v in state.items() if not k.endswith(name)}, CONFIG)
    with pytest.raises(UserError, match=r"has no entry encoder.stray"):
        convert("caml", {**state, "transformer_encoder.encoder.stray": np.zeros(1)}, CONFIG)
    with pytest.raises(UserError, match=r"output_proj.weight has shape \(3, 10\), .* \(3, 12\)"):
        convert("caml", state, {**CONFIG, "image_dim": 8})
    with pytest.raises(UserError, match=r"hidden_dim=12 must be image_dim \+ label_dim = 10"):
        convert("caml", state, {**CONFIG, "hidden_dim": 12})
