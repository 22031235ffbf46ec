"""UNet velocity against torchcfm's and D2NWG's PyTorch code (paper A.2.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.layers import sinusoidal_embedding
from flown_jax.torch_import import conditioned_unet, convert, unet
from tests.parity.fixtures import assert_close, load

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=("unet", "unet_class"))
def case(request, source):
    fixture = load(request.param, source)
    module = unet.module_from_config(fixture.config)
    variables = convert("unet", fixture.params, fixture.config)
    label = fixture.inputs.get("y")
    condition = None if label is None else {"label": jnp.asarray(label)}
    return fixture, module, variables, condition


@pytest.fixture(scope="module")
def conditioned_case(source):
    fixture = load("unet_cond", source)
    module = conditioned_unet.module_from_config(fixture.config)
    variables = convert("conditioned_unet", fixture.params, fixture.config)
    return fixture, module, variables


def test_every_parameter_has_its_place(case):
    fixture, module, variables, condition = case
    x = _nhwc(fixture.inputs["x"])
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, 0.0, condition)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_velocity_and_time_embedding(case):
    fixture, module, variables, condition = case
    inputs, expected = fixture.inputs, fixture.outputs
    x, t = _nhwc(inputs["x"]), jnp.asarray(inputs["t"])
    v, embedding = _apply_with_embedding(module, variables, x, t, condition, ("time_embed",))
    t_sin = sinusoidal_embedding(t, module.model_channels)
    assert_close(t_sin, expected["t_sin"], TOLERANCE, "t_sin")
    assert_close(embedding, expected["t_emb"], TOLERANCE, "t_emb")
    assert_close(_nchw(v), expected["v"], TOLERANCE, "v")
    loss = jnp.mean(jnp.square(v - _nhwc(inputs["u"])))
    assert_close(loss, expected["loss_mse"], TOLERANCE, "loss_mse")


def test_scalar_time(case):
    fixture, module, variables, condition = case
    v = module.apply(variables, _nhwc(fixture.inputs["x"]), 0.5, condition)
    assert_close(_nchw(v), fixture.outputs["v_scalar_t_half"], TOLERANCE, "v_scalar_t_half")


def test_four_euler_steps(case):
    fixture, module, variables, condition = case
    x = _nhwc(fixture.inputs["x0"])
    for step in range(4):
        x = x + module.apply(variables, x, step / 4, condition) / 4
    assert_close(_nchw(x), fixture.outputs["euler4"], TOLERANCE, "euler4")


def test_conditioned_unet(conditioned_case):
    fixture, module, variables = conditioned_case
    inputs, expected = fixture.inputs, fixture.outputs
    x, t, features = _nhwc(inputs["x"]), jnp.asarray(inputs["t"]), jnp.asarray(inputs["features"])
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, t, features)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)

    encoder_variables = {"params": variables["params"]["dataset_condition"]}
    condition = module.dataset_condition.apply(encoder_variables, features)
    assert_close(_nchw(condition), expected["cond"], TOLERANCE, "cond")

    path = ("unet", "time_embed")
    prediction, embedding = _apply_with_embedding(module, variables, x, t, features, path)
    t_sin = sinusoidal_embedding(t, module.unet.model_channels)
    # Whole steps up to 1000 leave float32's cosine 5e-5 (see the fixtures' own tolerance).
    assert_close(t_sin, expected["t_sin"], 5e-5, "t_sin")
    assert_close(embedding, expected["t_emb"], TOLERANCE, "t_emb")
    assert_close(_nchw(prediction), expected["eps_pred"], TOLERANCE, "eps_pred")
    loss = jnp.mean(jnp.square(prediction - _nhwc(inputs["noise"])))
    assert_close(loss, expected["loss_mse"], TOLERANCE, "loss_mse")


def _apply_with_embedding(module, variables, x, t, condition, path):
    v, state = module.apply(
        variables,
        x,
        t,
        condition,
        capture_intermediates=lambda submodule, _: submodule.name == "time_embed",
        mutable="intermediates",
    )
    found = state["intermediates"]
    for name in path:
        found = found[name]
    return v, found["__call__"][0]


def _nhwc(x):
    return jnp.asarray(x).transpose(0, 2, 3, 1)


def _nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)
