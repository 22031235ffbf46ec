"""Running statistics of generated networks, beside a direct computation."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation.batch_statistics import reestimated
from flown_jax.models import registry
from flown_jax.weights.spec import WeightSpec

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (24, 4, 4, 1)).astype(np.uint8)


class Two(nn.Module):
    """Two normalised layers: what the second sees depends on the first's batch."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        for i, width in enumerate((5, 3)):
            x = nn.Dense(width, name=f"dense_{i}")(x)
            x = nn.BatchNorm(not train, momentum=0.9, name=f"norm_{i}")(x)
            x = nn.relu(x)
        return x

    def state_dict_names(self):
        """PyTorch's names."""
        names = {}
        for i in (0, 1):
            names |= {f"dense_{i}.weight": f"params/dense_{i}/kernel"}
            names |= {f"dense_{i}.bias": f"params/dense_{i}/bias"}
            names |= {f"norm_{i}.weight": f"params/norm_{i}/scale"}
            names |= {f"norm_{i}.bias": f"params/norm_{i}/bias"}
            names |= {f"norm_{i}.running_mean": f"batch_stats/norm_{i}/mean"}
            names |= {f"norm_{i}.running_var": f"batch_stats/norm_{i}/var"}
        return names


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.MODELS, "two", Two)


def prepare(images):
    return images.astype(np.float32) / 255


HOST = jax.jit(lambda key: Two().init(key, jnp.zeros((1, 4, 4, 1)), train=True))(jax.random.key(0))


@pytest.mark.parametrize("part", [False, True])
def test_statistics_are_those_of_training_mode_over_batches(part):
    whole = WeightSpec.from_module(Two(), HOST)
    spec = whole.subset(lambda name: name.startswith("norm")) if part else whole
    weights = RNG.normal(size=(3, spec.size)).astype(np.float32)
    own, found = reestimated(spec, weights, IMAGES, prepare, host=HOST, images_at_a_time=10)
    assert own.names[0] == "norm_0.running_mean" and found.shape == (3, 2 * (5 + 3))
    for vector, statistics in zip(weights, found, strict=True):
        params = spec.unflatten(jnp.asarray(vector), HOST)["params"]
        batches = []
        for start in (0, 10):  # the last four images fill no batch
            x, expected = prepare(IMAGES[start : start + 10]).reshape(10, -1), []
            for i in (0, 1):
                dense, norm = params[f"dense_{i}"], params[f"norm_{i}"]
                x = x @ dense["kernel"] + dense["bias"]
                mean, var = x.mean(0), x.var(0)
                expected += [mean, var]
                x = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
                x = np.maximum(x, 0)
            batches.append(np.concatenate(expected))
        np.testing.assert_allclose(statistics, np.mean(batches, 0), rtol=2e-4, atol=1e-5)


def test_networks_without_batchnorm_have_none():
    spec = WeightSpec.from_module(Two(), HOST)
    params = {"params": HOST["params"]}
    assert reestimated(spec, np.zeros((1, spec.size)), IMAGES, prepare, host=params) is None
