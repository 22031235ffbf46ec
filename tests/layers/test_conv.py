"""Convolution forms: one function, one gradient, whatever the form."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.layers import Conv, ConvTranspose1d, conv2d
from flown_jax.layers.conv import FORMS
from flown_jax.layers.conv1d import Conv1d
from tests.layers.helpers import initial_variables, quick_jit, random_variables

pytestmark = pytest.mark.fast

# (height, width, in, out, kernel): square and not, odd kernels, tiny maps
SAME_CASES = [
    (6, 4, 3, 5, 3),
    (5, 4, 5, 2, 3),
    (5, 5, 2, 2, 5),
    (2, 2, 3, 4, 3),
    (1, 1, 3, 2, 3),
    (4, 3, 2, 3, 1),
]
OTHER_CASES = [(2, ((1, 1), (1, 1))), (2, ((0, 1), (0, 1))), (1, ((0, 0), (0, 0)))]


def _case(height, width, inputs, outputs, k, batch=3):
    key_x, key_kernel = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (batch, height, width, inputs))
    return x, jax.random.normal(key_kernel, (k, k, inputs, outputs)) / k


def _agree(x, kernel, forms, **options):
    """All forms give plain convolution's value and gradients."""

    @quick_jit
    def compute(x, kernel):
        def loss(x, kernel, form):
            y = conv2d(x, kernel, form=form, **options)
            return jnp.sum(jnp.sin(y)), y

        run = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return {form: run(x, kernel, form) for form in (*forms, "lax")}

    results = compute(x, kernel)
    expected = jax.tree.leaves(results["lax"])
    for form in forms:
        for a, b in zip(jax.tree.leaves(results[form]), expected, strict=True):
            # float32 sums in another order
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=form)


@pytest.mark.parametrize("case", SAME_CASES)
def test_same_size_forms_agree_with_plain_convolution(case):
    _agree(*_case(*case), FORMS)


@pytest.mark.parametrize("stride, padding", OTHER_CASES)
def test_strides_and_paddings_agree_with_plain_convolution(stride, padding):
    _agree(*_case(8, 6, 3, 4, 3), ("auto", "patches"), stride=stride, padding=padding)


def test_gradient_inside_scan_and_vmap():
    x, kernel = _case(4, 4, 2, 2, 3)

    def loss(kernel, form):
        h, _ = jax.lax.scan(lambda h, _: (jnp.tanh(conv2d(h, kernel, form=form)), None), x, None, 3)
        return jnp.sum(h**2)

    @quick_jit
    def gradients(kernels):
        return [jax.vmap(jax.grad(loss), (0, None))(kernels, form) for form in ("auto", "lax")]

    np.testing.assert_allclose(*gradients(jnp.stack([kernel, 2 * kernel])), rtol=1e-4, atol=1e-4)


def test_loops_hold_no_slow_gradient():
    """The compiled loop has only convolutions of the layout that XLA's CPU backend is fast at."""
    x, kernel = _case(8, 8, 2, 2, 3)

    def loss(kernel):
        h, _ = jax.lax.scan(lambda h, _: (jnp.tanh(conv2d(h, kernel)), None), x, None, 3)
        return jnp.sum(h**2)

    if jax.default_backend() == "cpu":
        text = jax.jit(jax.grad(loss)).lower(kernel).compile().as_text()
        layouts = set(re.findall(r"dim_labels=(\S+?),? ", text))
        assert layouts == {"b01f_01io->b01f"}


def test_plain_form_has_forward_mode():
    x, kernel = _case(4, 4, 2, 2, 3)
    _, tangent = jax.jvp(lambda x: conv2d(x, kernel, form="lax"), (x,), (x,))
    np.testing.assert_allclose(tangent, conv2d(x, kernel), rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: conv2d(x, kernel), (x,), (x,))


def test_default_initialisation_is_pytorch_s():
    layer = Conv(64)
    params = initial_variables(layer, jnp.zeros((1, 4, 4, 16)))["params"]
    bound = (9 * 16) ** -0.5
    for leaf in params.values():
        assert float(jnp.abs(leaf).max()) <= bound
    assert float(params["kernel"].std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_refusals_name_the_reason():
    x, kernel = _case(4, 4, 2, 3, 3)
    with pytest.raises(ValueError, match="form 'fast' is unknown"):
        conv2d(x, kernel, form="fast")
    with pytest.raises(ValueError, match="covers stride 1 and same-size output only"):
        conv2d(x, kernel, stride=2, form="canonical")
    with pytest.raises(ValueError, match="needs x"):
        conv2d(x[..., :1], kernel)


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (5, 5, 0), (3, 1, 3), (4, 2, 1)])
def test_convolution_of_sequences_agrees_with_plain_convolution(kernel, stride, padding):
    layer = Conv1d(4, kernel, stride=stride, padding=padding)
    x = jax.random.normal(jax.random.key(0), (2, 17, 3))
    variables = random_variables(layer, x)

    @quick_jit
    def both(x):
        params, dimensions = variables["params"], ("NLC", "LIO", "NLC")
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (stride,), [(padding, padding)], dimension_numbers=dimensions
        )
        return layer.apply(variables, x), y + params["bias"]

    found, expected = both(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_transposed_convolution_writes_one_block_a_position():
    layer = ConvTranspose1d(features=2, kernel_size=3)
    x = jnp.zeros((1, 4, 2)).at[0, 1, 0].set(1.0)
    variables = random_variables(layer, x)
    params = variables["params"]
    y = layer.apply(variables, x) - params["bias"]
    assert y.shape == (1, 12, 2)
    np.testing.assert_allclose(y[0, 3:6], params["kernel"][:, 0], rtol=1e-6)
    assert not np.any(np.delete(np.asarray(y[0]), [3, 4, 5], 0))
