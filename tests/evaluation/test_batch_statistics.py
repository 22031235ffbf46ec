"""Running statistics of generated networks are those of a pass in training mode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.evaluation import batch_statistics, vectors
from flown_jax.evaluation.batch_statistics import reestimated
from flown_jax.models import ResNet12, ResNet18
from flown_jax.models.subsets import last_norms
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import quick_jit, random_variables
from tests.networks import zoos

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 255, (23, 16, 16, 1)).astype(np.uint8)
SMALL = {
    "resnet18": ResNet18(width=2, num_classes=3),
    "resnet12": ResNet12(channels=(2, 3, 2, 4), num_classes=3),
}


def prepare(images):
    return images.astype(np.float32) / 255 - 0.5


def host_of(module):
    variables = random_variables(module, prepare(IMAGES[:1]))
    return variables | {"batch_stats": jax.tree.map(np.abs, variables["batch_stats"])}


def convolutions(module, variables, images):
    """What each BatchNorm sees, by its path, in training mode."""
    kept = quick_jit(
        lambda v, x: module.apply(
            v, x, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
        )[1]["intermediates"]
    )(variables, prepare(images))
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        *block, name = ("", *(k.key for k in path if getattr(k, "key", "__call__") != "__call__"))
        if "conv" in name:
            norm = name.replace("shortcut_conv", "shortcut_bn").replace("conv", "bn")
            found["/".join((*block[1:], norm))] = np.asarray(leaf, np.float64)
    return found


@pytest.mark.parametrize("kind", ["resnet12", "part"])
def test_statistics_are_means_over_batches_of_mean_and_unbiased_variance(monkeypatch, kind):
    monkeypatch.setattr(batch_statistics, "_VECTORS", 2)  # does not divide 3 vectors
    module = SMALL["resnet18" if kind == "part" else kind]
    host = host_of(module)
    spec = WeightSpec.from_module(module, host)
    if kind == "part":
        spec = spec.subset(set(last_norms("resnet18", module)).__contains__)
    weights = np.asarray(spec.flatten(host)) + 0.1 * DRAW.normal(size=(3, spec.size))
    weights = weights.astype(np.float32)
    around = host if kind == "part" else None
    statistics, found = reestimated(
        spec, weights, IMAGES, prepare, host=around, images_at_a_time=10
    )
    assert found.shape == (3, statistics.size) and found.dtype == np.float32
    listed = [n for n, path in module.state_dict_names().items() if path.startswith("batch_stats")]
    assert list(statistics.names) == listed
    for vector, own in zip(weights, found, strict=True):
        variables = spec.unflatten(jnp.asarray(vector), host)
        # Two whole batches; the last three images are left out.
        seen = [convolutions(module, variables, IMAGES[start : start + 10]) for start in (0, 10)]
        for entry in statistics.entries:
            norm, leaf = entry.path.removeprefix("batch_stats/").rsplit("/", 1)
            maps = [batch[norm].reshape(-1, entry.size) for batch in seen]
            each = [x.mean(0) if leaf == "mean" else x.var(0, ddof=1) for x in maps]
            expected = np.mean(each, axis=0)
            np.testing.assert_allclose(
                own[statistics.slices[entry.name]], expected, rtol=1e-3, atol=1e-4
            )
    if kind != "part":
        return
    differ = {n for n, place in statistics.slices.items() if np.ptp(found[:, place], 0).any()}
    assert differ == {"layer4.1.bn2.running_mean", "layer4.1.bn2.running_var"}
    classes = vectors.predictions(
        spec, weights, IMAGES, prepare, host=host, buffers_spec=statistics, buffers=found
    )
    for vector, own, answers in zip(weights, found, classes, strict=True):
        base = statistics.unflatten(jnp.asarray(own), host)
        logits = quick_jit(module.apply)(spec.unflatten(jnp.asarray(vector), base), prepare(IMAGES))
        np.testing.assert_array_equal(answers, np.asarray(logits).argmax(-1))


def test_networks_without_batch_norm_have_none():
    spec = zoos.SPECS["grey"]
    images = np.zeros((3, *zoos.images("grey", 1, 0).shape[1:]), np.uint8)
    assert reestimated(spec, zoos.weights("grey", 2), images, prepare) is None
