"""The zoos' initialisation: distributions, biases, keys."""

import functools
import math

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import CNN, initialise_cnn
from tests.layers.helpers import quick_jit

pytestmark = pytest.mark.fast

TINY = CNN(channels=(16,), kernels=(3,), pools=(True,))


@pytest.mark.parametrize("scheme", ["uniform", "normal", "kaiming_uniform", "kaiming_normal"])
def test_distribution(scheme):
    one = functools.partial(initialise_cnn, cnn=TINY, image_shape=(8, 8, 3), scheme=scheme)
    params = quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 30))
    for layer in params.values():
        kernel = np.asarray(layer["kernel"])
        fan_in = math.prod(kernel.shape[1:-1])
        bound = math.sqrt(6 / fan_in)
        mean, std, low, high = {
            "uniform": (0.5, math.sqrt(1 / 12), 0, 1),
            "normal": (0, 1, -np.inf, np.inf),
            "kaiming_uniform": (0, math.sqrt(2 / fan_in), -bound, bound),
            "kaiming_normal": (0, math.sqrt(2 / fan_in), -np.inf, np.inf),
        }[scheme]
        # Of 6,000 values or more: five standard errors.
        assert abs(kernel.mean() - mean) < 5 * std / math.sqrt(kernel.size)
        np.testing.assert_allclose(kernel.std(), std, rtol=0.05)
        assert low <= kernel.min() and kernel.max() <= high
        if "uniform" in scheme:
            np.testing.assert_allclose([kernel.min(), kernel.max()], [low, high], atol=0.01)
        np.testing.assert_array_equal(layer["bias"], np.float32(0.01))


def test_fits_the_network_and_depends_on_the_key():
    image_shape = (9, 7, 1)

    @quick_jit
    def draw(key):
        return initialise_cnn(key, TINY, image_shape, "kaiming_uniform")

    params, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    fresh = jax.eval_shape(TINY.init, jax.random.key(0), images)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, fresh)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not np.array_equal(params["dense_1"]["kernel"], other["dense_1"]["kernel"])


def test_refusals():
    with pytest.raises(UserError, match=r"initialisation 'xavier' is unknown; it is one of unif"):
        initialise_cnn(jax.random.key(0), TINY, (8, 8, 1), "xavier")
    with pytest.raises(UserError, match=r"images of 3x8 are too small"):
        initialise_cnn(jax.random.key(0), TINY, (3, 8, 1), "normal")
