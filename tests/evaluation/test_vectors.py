"""Accuracies of vectors are those of the networks one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from flown_jax.evaluation import vectors
from flown_jax.models import registry
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import initial_variables, quick_jit
from tests.networks import zoos

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 255, (23, 5, 5, 1)).astype(np.uint8)
LABELS = DRAW.integers(0, 3, 23)


class Small(nn.Module):
    """A linear layer, a BatchNorm and another linear layer."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(4, name="first")(images.reshape(len(images), -1))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(self.num_classes, name="last")(jnp.tanh(x))

    def state_dict_names(self):
        names = {f"{n}.weight": f"params/{n}/kernel" for n in ("first", "last")}
        names |= {f"{n}.bias": f"params/{n}/bias" for n in ("first", "norm", "last")}
        names["norm.weight"] = "params/norm/scale"
        return names | {f"norm.{n}": f"batch_stats/norm/{n}" for n in ("mean", "var")}


def prepare(images):
    return images.astype(np.float32) / 255


HOST = initial_variables(Small(), prepare(IMAGES))
apply = quick_jit(Small().apply)


@pytest.mark.parametrize("kind", ["whole", "part", "own statistics"])
def test_measures_are_those_of_one_network_at_a_time(monkeypatch, kind):
    monkeypatch.setitem(registry.MODELS, "small", Small)
    monkeypatch.setattr(vectors, "_IMAGES", 10)  # blocks that do not divide 23 images
    monkeypatch.setattr(vectors, "_IMAGES_OF_WHOLE", 9)
    monkeypatch.setattr(vectors, "_VECTORS", 4)  # groups that do not divide 7 vectors
    monkeypatch.setattr(vectors, "_WHOLE", 3)
    whole = WeightSpec.from_module(Small(), HOST)
    spec = whole.subset(lambda name: name.startswith("norm")) if kind == "part" else whole
    weights = DRAW.normal(size=(7, spec.size)).astype(np.float32)
    buffers_spec = buffers = None
    if kind == "own statistics":
        buffers_spec = WeightSpec.from_module(Small(), HOST, collections=("batch_stats",))
        buffers = DRAW.uniform(0.5, 2.0, (7, buffers_spec.size)).astype(np.float32)
    told = []
    own = {"host": HOST, "buffers_spec": buffers_spec, "buffers": buffers}
    found = vectors.measure(spec, weights, IMAGES, LABELS, prepare, **own, update=told.append)
    weights[3, 0] = np.nan if kind == "part" else weights[3, 0]
    classes = vectors.predictions(spec, weights, IMAGES, prepare, **own)
    assert classes.shape == (7, 23)
    for i, vector in enumerate(weights):
        base = HOST if buffers is None else buffers_spec.unflatten(jnp.asarray(buffers[i]), HOST)
        logits = apply(spec.unflatten(jnp.asarray(vector), base), prepare(IMAGES))
        broken = np.isnan(vector).any()
        np.testing.assert_array_equal(classes[i], -1 if broken else np.asarray(logits).argmax(-1))
        if broken:
            continue
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
        assert found["accuracy"][i] == (np.asarray(logits).argmax(-1) == LABELS).mean()
        np.testing.assert_allclose(found["loss"][i], nll.mean(), rtol=1e-5)
    assert len(np.unique(found["loss"])) == 7
    assert told[-1] == 23


def test_whole_cnns_are_evaluated_some_at_a_time(monkeypatch):
    monkeypatch.setattr(vectors, "_WHOLE", 3)
    monkeypatch.setattr(vectors, "_IMAGES_OF_WHOLE", 9)
    spec = zoos.SPECS["grey"]
    images = DRAW.integers(0, 255, (13, *zoos.images("grey", 1, 0).shape[1:])).astype(np.uint8)
    weights = zoos.weights("grey", 5)
    weights[1, -1] = np.inf
    found = vectors.predictions(spec, weights, images, prepare)
    logits = jax.jit(jax.vmap(spec.apply, (0, None)))(weights, prepare(images))
    assert np.all(found[1] == -1) and len(np.unique(found)) > 2
    good = [0, 2, 3, 4]
    np.testing.assert_array_equal(found[good], np.asarray(logits).argmax(-1)[good])


def test_what_is_explained_is_nothing_by_the_mean_and_all_by_the_vectors():
    x = DRAW.normal(size=(4, 3)).astype(np.float32)
    assert vectors.explained(x, x) == 1 and vectors.explained(x, 0 * x) == 0
    assert vectors.explained(x, x / 2) == pytest.approx(0.75)
    # Over all vectors together: a large one counts more than a small one.
    assert vectors.explained(np.array([[3.0], [1.0]]), np.array([[3.0], [0.0]])) == 0.9
