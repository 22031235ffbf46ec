"""UNet: zero start, time and condition inputs, refusals, loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.velocity import ConditionedUNet, DatasetCondition, UNet
from tests.layers.helpers import initial_variables, quick_jit, random_variables

SMALL = {
    "model_channels": 8,
    "out_channels": 3,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "num_groups": 4,
}
LOW = SMALL | {"channel_mult": (1,)}  # one level, where the levels do not matter
VARIANTS = {
    "plain": {},
    "all options": {
        "attention_resolutions": (2,),
        "num_head_channels": 4,
        "use_new_attention_order": True,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
}


def _maps(side=4, channels=3, batch=2):
    return jax.random.normal(jax.random.key(0), (batch, side, side, channels))


def _velocity(model, variables, *inputs):
    return quick_jit(model.apply)(variables, *inputs)


def test_velocity_is_zero_at_the_start():
    model, x = UNet(**LOW), _maps()
    variables = initial_variables(model, x, 0.3)
    np.testing.assert_array_equal(_velocity(model, variables, x, 0.3), 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_takes_part(name):
    model, x = UNet(**SMALL | VARIANTS[name]), _maps()

    def loss(variables):
        v = model.apply(variables, x, 0.3)
        return jnp.mean((v - x) ** 2), v

    gradients, v = quick_jit(jax.grad(loss, has_aux=True))(random_variables(model, x, 0.3))
    assert v.shape == x.shape
    for gradient in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(gradient)) and float(jnp.abs(gradient).max()) > 0


def test_scalar_time_is_the_same_time_for_all_and_time_scale_scales_it():
    x = _maps()
    model = UNet(**LOW)
    variables = random_variables(model, x, 0.0)
    v = _velocity(model, variables, x, 0.5)
    np.testing.assert_allclose(v, _velocity(model, variables, x, jnp.full(2, 0.5)), rtol=1e-6)
    scaled = _velocity(UNet(**LOW, time_scale=10.0), variables, x, 0.05)
    np.testing.assert_allclose(v, scaled, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(v - _velocity(model, variables, x, 0.9)).max()) > 1e-3
    with pytest.raises(UserError, match=r"t must be a scalar or of shape \(2,\), got \(3,\)"):
        _velocity(model, variables, x, jnp.zeros(3))


@pytest.mark.parametrize("entry", ["label", "channels", "embedding"])
def test_each_condition_reaches_the_velocity_of_its_own_sample(entry):
    x = _maps()
    value = {
        "label": jnp.array([0, 1]),
        "channels": _maps(channels=2),
        "embedding": jax.random.normal(jax.random.key(4), (2, 5)),
    }[entry]
    model = UNet(**LOW, num_classes=3 if entry == "label" else None)
    variables = random_variables(model, x, 0.0, {entry: value})
    v = _velocity(model, variables, x, 0.2, {entry: value})
    other = _velocity(model, variables, x, 0.2, {entry: value.at[1].add(1)})
    np.testing.assert_allclose(v[0], other[0], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(v[1] - other[1]).max()) > 1e-3


def test_all_conditions_together():
    x = _maps()
    condition = {
        "label": jnp.array([0, 1]),
        "channels": _maps(channels=2),
        "embedding": jnp.ones((2, 5)),
    }
    model = UNet(**LOW, num_classes=3)
    variables = random_variables(model, x, 0.0, condition)
    v = jax.eval_shape(model.apply, variables, x, 0.0, condition)
    assert v.shape == x.shape


def test_conditions_other_than_the_parameters_are_refused():
    x = _maps()
    model = UNet(**LOW)
    plain = random_variables(model, x, 0.0)
    embedding = {"embedding": jnp.ones((2, 5))}
    projected = random_variables(model, x, 0.0, embedding)
    with pytest.raises(UserError, match="made without a condition 'embedding'"):
        model.apply(plain, x, 0.0, embedding)
    with pytest.raises(UserError, match="made with a condition 'embedding'"):
        model.apply(projected, x, 0.0)
    with pytest.raises(UserError, match="take 3 input channels, got 3 of x and 2"):
        model.apply(plain, x, 0.0, {"channels": _maps(channels=2)})
    with pytest.raises(UserError, match=r"must be \(2, 4, 4, 'c'\)"):
        model.apply(plain, x, 0.0, {"channels": _maps(side=2)})
    with pytest.raises(UserError, match=r"entries of .*, got \['labels'\]"):
        model.apply(plain, x, 0.0, {"labels": jnp.zeros(2)})
    with pytest.raises(UserError, match="num_classes=None takes no condition 'label'"):
        model.apply(plain, x, 0.0, {"label": jnp.zeros(2, int)})
    with pytest.raises(UserError, match="num_classes=3 needs a condition 'label'"):
        UNet(**LOW, num_classes=3).init(jax.random.key(0), x, 0.0)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="multiples of 4, got"):
        UNet(**SMALL | {"channel_mult": (1, 1, 2)}).init(jax.random.key(0), _maps(side=6), 0.0)


def test_default_convolutions_give_the_plain_gradient():
    """Default form against XLA's own, over maps of side 4 (canonical) and 2 (dense)."""
    x = _maps()
    variables = random_variables(UNet(**SMALL), x, 0.0)

    @quick_jit
    def gradient(variables):
        def loss(variables, form):
            return jnp.mean((UNet(**SMALL, form=form).apply(variables, x, 0.4) - x) ** 2)

        return [jax.grad(loss)(variables, form) for form in ("auto", "lax")]

    for a, b in zip(*map(jax.tree.leaves, gradient(variables)), strict=True):
        scale = float(jnp.abs(b).max())
        # float32 rounding through some twenty layers
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)


def test_half_precision_computes_in_half_precision():
    x = _maps()
    model = UNet(**LOW, dtype=jnp.bfloat16)
    variables = random_variables(model, x, 0.0)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert jax.eval_shape(model.apply, variables, x, 0.0).dtype == jnp.bfloat16


def test_samples_do_not_see_each_other():
    x = _maps()
    model = UNet(**LOW)
    variables = random_variables(model, x, 0.0)
    alone = _velocity(model, variables, x[:1], 0.4)
    np.testing.assert_allclose(alone, _velocity(model, variables, x, 0.4)[:1], rtol=1e-4, atol=1e-5)


def test_gradient_through_a_scanned_integration():
    """Euler's steps in a scan equal a Python loop, gradient included (default convolution)."""
    x, steps = _maps(), 3
    model = UNet(**LOW)
    variables = random_variables(model, x, 0.0)

    def step(x, t):
        return x + model.apply(variables, x, t) / steps, None

    def scanned(x):
        return jnp.sum(jax.lax.scan(step, x, jnp.arange(steps) / steps)[0] ** 2)

    def looped(x):
        for i in range(steps):
            x, _ = step(x, i / steps)
        return jnp.sum(x**2)

    a, b = quick_jit(lambda x: (jax.grad(scanned)(x), jax.grad(looped)(x)))(x)
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.abs(b).max()))


def test_dataset_condition_uses_the_first_rows_for_smaller_data_sets():
    encoder = DatasetCondition(max_inputs=6, out_dim=2, side=4)
    large = jax.random.normal(jax.random.key(0), (2, 3, 2, 5))
    variables = random_variables(encoder, large)
    assert encoder.apply(variables, large).shape == (2, 4, 4, 1)
    params = variables["params"]
    kernel = np.array(params["across_kernel"])
    kernel[4:] = 0.0
    # Samples are outside, classes inside: with two classes the third's rows must go elsewhere.
    small = large[:, :2]
    cut = {"params": params | {"across_kernel": kernel}}
    np.testing.assert_allclose(
        encoder.apply(variables, small), encoder.apply(cut, small), rtol=1e-6
    )
    with pytest.raises(UserError, match="classes \\* samples <= 6"):
        encoder.apply(variables, jnp.zeros((1, 4, 2, 5)))


def test_conditioned_unet_is_a_velocity():
    model = ConditionedUNet(
        UNet(**LOW | {"out_channels": 1}), DatasetCondition(max_inputs=6, out_dim=2, side=4)
    )
    x, features = _maps(channels=1), jax.random.normal(jax.random.key(5), (2, 3, 2, 5))
    variables = random_variables(model, x, 0.0, features)
    v = _velocity(model, variables, x, 0.3, features)
    assert v.shape == x.shape
    assert float(jnp.abs(v - _velocity(model, variables, x, 0.3, -features)).max()) > 1e-4
