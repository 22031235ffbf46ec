"""Sources: spread from the fan, densities, and independence from the batch size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flown_jax.flow import get_source
from flown_jax.flow.sources import NAMES

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_spread(name, scale):
    source, shape = get_source(name, scale), (4000, 4, 4, 4)
    x0 = source(jax.random.key(0), shape)
    expected = {
        "gaussian": 1,
        "kaiming_normal": 0.17678,
        "kaiming_uniform": 0.17678,
        "kaiming_uniform_linear": 0.07217,
    }[name] * scale
    assert x0.shape == shape
    assert source.std(shape) == pytest.approx(expected, rel=1e-4)
    assert source.std((1, *shape[1:])) == source.std(shape)
    # 256,000 draws: the standard error of the standard deviation is 0.15 %.
    assert float(x0.std()) == pytest.approx(expected, rel=0.01)
    assert abs(float(x0.mean())) < 0.01 * expected
    if not source.is_gaussian:
        assert float(jnp.abs(x0).max()) <= np.sqrt(3) * expected * 1.0001


def test_log_prob():
    x = jnp.array([[0.1, -0.2, 0.05], [0.3, 0.0, 5.0]])
    for name in NAMES:
        source = get_source(name, 0.7)
        std = source.std(x.shape)
        law = (
            stats.norm(0, std)
            if source.is_gaussian
            else stats.uniform(-np.sqrt(3) * std, 2 * np.sqrt(3) * std)
        )
        np.testing.assert_allclose(source.log_prob(x), law.logpdf(x).sum(-1), rtol=1e-5)


def test_standard_normal_is_recognised():
    assert get_source("gaussian").is_standard_normal
    assert not get_source("gaussian", 0.5).is_standard_normal
    assert not get_source("kaiming_normal").is_standard_normal


def test_errors():
    with pytest.raises(ValueError, match="expected one of gaussian, kaiming_normal"):
        get_source("kaiming")
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        get_source("gaussian", 0)
    with pytest.raises(ValueError, match="at least two axes"):
        get_source("gaussian").std((4,))
