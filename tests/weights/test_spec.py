"""The meaning of a vector: order and layout, exact inverses, statistics, subsets, records."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import ResNet12, ResNet18, last_norms
from flown_jax.weights.spec import Entry, WeightSpec
from tests.layers.helpers import quick_jit, random_variables
from tests.parity import fixtures
from tests.weights import small

pytestmark = pytest.mark.fast

IMAGES = np.random.default_rng(5).normal(size=(3, 8, 8, 1)).astype(np.float32)


class Toy(nn.Module):
    """A module that is not registered, with names whose text order is not their natural order."""

    activation: str = "tanh"

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(3, (3, 2), name="conv_10")(x)
        x = nn.BatchNorm(use_running_average=not train, name="conv_2")(x)
        x = x + self.param("offset", nn.initializers.ones, (3,))
        return nn.Dense(4, name="head")(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def toy():
    return random_variables(Toy(), jnp.zeros((1, 4, 4, 2)))


def test_a_vector_has_pytorchs_order_and_layout():
    layer = {"kernel": np.arange(12.0).reshape(1, 2, 3, 2), "bias": np.array([50.0, 60.0])}
    dense = {"kernel": np.arange(6.0).reshape(3, 2), "bias": np.array([70.0, 80.0])}
    variables = {"params": {"dense_0": dense, "conv_0": layer}}
    w = WeightSpec.from_module(nn.Dense(1), variables).flatten(variables)
    # (out, in, kh, kw): the inputs of output 0, place by place, then those of output 1.
    conv = [0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]
    np.testing.assert_array_equal(w, [*conv, 50, 60, 0, 2, 4, 1, 3, 5, 70, 80])


def test_names_and_order_are_made_up_where_a_module_has_none(toy):
    spec = WeightSpec.from_module(Toy(), toy, collections=("params", "batch_stats"))
    assert spec.names == (
        "offset",
        *(f"conv_2.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        *(f"{module}.{name}" for module in ("conv_10", "head") for name in ("weight", "bias")),
    )
    assert spec.entries[5] == Entry("conv_10.weight", "params/conv_10/kernel", (3, 2, 3, 2))
    assert spec.slices["conv_2.bias"] == slice(6, 9)
    assert spec.size == 3 + 4 * 3 + 39 + 4 * 49 and spec.slices["head.bias"].stop == spec.size


@pytest.mark.parametrize("collections", [("params",), ("batch_stats",), ("params", "batch_stats")])
def test_unflatten_is_the_exact_inverse(toy, collections):
    spec = WeightSpec.from_module(Toy(), toy, collections=collections)
    back = spec.unflatten(spec.flatten(toy))
    assert set(back) == set(collections)
    jax.tree.map(np.testing.assert_array_equal, back, {name: toy[name] for name in collections})
    w = jnp.arange(spec.size, dtype=jnp.float32)
    np.testing.assert_array_equal(spec.flatten(spec.unflatten(w)), w)


def test_both_ways_can_be_mapped_and_jitted(toy):
    spec = WeightSpec.from_module(Toy(), toy)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), toy)
    w = jax.jit(jax.vmap(spec.flatten))(many)
    np.testing.assert_array_equal(w, jnp.stack([w[0], 2 * w[0]]))
    back = jax.jit(jax.vmap(spec.unflatten, in_axes=(0, None)))(w, toy)
    jax.tree.map(np.testing.assert_array_equal, back["params"], many["params"])
    assert back["batch_stats"]["conv_2"]["mean"].shape == (2, 3)


def test_a_vector_of_another_length_is_refused_with_both():
    spec = small.spec()
    for w, given in ((np.zeros(55), "55 values"), (np.zeros((2, 56)), r"shape \(2, 56\)")):
        with pytest.raises(UserError, match=f"has {spec.size} values, not {given}"):
            spec.unflatten(w)


def test_variables_of_another_network_are_refused_by_name(toy):
    spec = small.spec()
    with pytest.raises(UserError, match="no params/conv_0/kernel"):
        spec.flatten(toy)
    rgb = random_variables(small.network(), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match=r"shape \(2, 3, 3, 3\).*not \(2, 1, 3, 3\)"):
        spec.flatten(rgb)
    with pytest.raises(UserError, match=r"shape \(2, 3, 3, 3\)"):
        spec.unflatten(np.zeros(spec.size), base=rgb)
    with pytest.raises(UserError, match="the variables are not the module's"):
        WeightSpec.from_module(small.network(), toy)
    with pytest.raises(UserError, match="no collection 'params'; they have conv_0"):
        WeightSpec.from_module(small.network(), {"conv_0": {}})


def test_a_subset_changes_its_tensors_and_no_others(toy):
    whole = WeightSpec.from_module(Toy(), toy)
    part = whole.subset(lambda name: name.startswith("head."))
    assert part.names == ("head.weight", "head.bias") and part.partial and not whole.partial
    w = jnp.arange(part.size, dtype=jnp.float32)
    changed = part.unflatten(w, base=toy)
    np.testing.assert_array_equal(part.flatten(changed), w)
    changed["params"]["head"] = toy["params"]["head"]
    jax.tree.map(np.testing.assert_array_equal, changed, toy)
    with pytest.raises(UserError, match="give `base`"):
        part.unflatten(w)
    with pytest.raises(UserError, match="no params/head/kernel"):
        part.unflatten(w, base={"params": {}})
    with pytest.raises(UserError, match="no tensor"):
        whole.subset(lambda name: name == "body")
    assert whole.subset(lambda name: True) == whole


def test_a_spec_and_a_vector_are_a_network():
    module, spec = small.network(activation="gelu"), small.spec(activation="gelu")
    variables = random_variables(module, IMAGES)
    rebuilt = WeightSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert rebuilt.module() == module
    logits = quick_jit(rebuilt.apply)(spec.flatten(variables), IMAGES)
    np.testing.assert_allclose(logits, module.apply(variables, IMAGES), atol=1e-6)
    # The same vector with another activation is another function.
    other = small.spec(activation="tanh").apply(spec.flatten(variables), IMAGES)
    assert float(jnp.abs(other - logits).max()) > 1e-2


def test_an_unregistered_network_cannot_be_rebuilt(toy):
    spec = WeightSpec.from_module(Toy(), toy)
    assert spec.model is None
    with pytest.raises(UserError, match="not a registered model"):
        spec.apply(spec.flatten(toy), IMAGES)


def test_running_statistics_come_from_the_base_or_the_vector():
    module = ResNet12(channels=(2,), num_classes=4)
    variables = random_variables(module, IMAGES)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    spec = WeightSpec.from_module(module, variables)
    buffers = WeightSpec.from_module(module, variables, collections=("batch_stats",))
    both = WeightSpec.from_module(module, variables, collections=("params", "batch_stats"))
    assert both.size == spec.size + buffers.size
    expected = module.apply(variables, IMAGES, method="logits")
    for found in (
        spec.apply(spec.flatten(variables), IMAGES, base=variables),
        spec.apply(
            spec.flatten(variables), IMAGES, base=buffers.unflatten(buffers.flatten(variables))
        ),
        both.apply(both.flatten(variables), IMAGES),
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="the network needs batch_stats"):
        spec.apply(spec.flatten(variables), IMAGES)


def test_a_spec_is_its_value():
    spec = small.spec()
    again = WeightSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec and hash(again) == hash(spec) and again.fingerprint == spec.fingerprint
    assert spec.to_json() == again.to_json() and spec.difference(again) is None
    assert spec.sizes_dict["activation"] == "tanh" and spec.inputs_dict == small.INPUTS
    assert json.loads(json.dumps(spec.inputs_dict)) == spec.inputs_dict
    # Order of fields, tuples and NumPy's numbers are no difference.
    same = {key: small.INPUTS[key] for key in reversed(small.INPUTS)}
    same |= {"mean": (0.1307,), "size": np.int64(8)}
    assert small.spec(inputs=same).fingerprint == spec.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "gelu"}, "activation is gelu, not tanh"),
        ({"dropout": 0.5}, "dropout is 0.5, not 0.0"),
        ({"channels_in": 3}, "tensor is module_list.0.weight (2, 3, 3, 3), not"),
        ({"inputs": small.INPUTS | {"mean": [0.5]}}, "the input's mean is [0.5], not [0.1307]"),
        ({"inputs": {}}, "the input's channels is None, not 1"),
    ],
)
def test_whatever_changes_the_function_changes_the_fingerprint(change, words):
    spec, other = small.spec(), small.spec(**change)
    assert other != spec and other.fingerprint != spec.fingerprint
    assert words in (spec.difference(other) or "")


def test_parts_and_orders_have_fingerprints_of_their_own():
    spec = small.spec()
    record = spec.to_json()
    record["entries"] = record["entries"][::-1]
    part = spec.subset(lambda name: ".0." in name)
    marks = {s.fingerprint for s in (spec, part, WeightSpec.from_json(record))}
    assert len(marks) == 3
    assert "there are 2 tensors, not 6" in (spec.difference(part) or "")


@pytest.mark.parametrize(
    "change", [{"entries": []}, {"entries": [{"name": "a"}]}, {"model": 3}, {"sizes": [1]}]
)
def test_a_damaged_record_is_refused(change):
    with pytest.raises(UserError, match="not the record of a weight spec"):
        WeightSpec.from_json(small.spec().to_json() | change)


def test_inputs_must_be_json():
    for inputs in ({"mean": float("nan")}, {"mean": object()}, [1]):
        with pytest.raises(UserError, match="inputs must be"):
            small.spec(inputs=inputs)


@pytest.mark.parametrize("case", ["small1", "small3", "medium1"])
def test_a_published_zoos_vector_gives_its_logits(case):
    from flown_jax.models import cnn_medium, cnn_small

    fixture = fixtures.load("zoo_models", "published")
    w = fixture.outputs[f"{case}.vector"]
    module = cnn_medium() if case == "medium1" else cnn_small()
    module = module.clone(activation="gelu") if case == "small3" else module
    images = fixture.inputs[f"{case}.x"].transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    spec = WeightSpec.from_module(module, shapes)
    assert (spec.size,) == w.shape
    fixtures.assert_close(quick_jit(spec.apply)(w, images), fixture.outputs[f"{case}.logits"], 3e-6)


def test_the_last_norms_of_a_resnet_are_put_into_their_host():
    fixture = fixtures.load("zoo_models", "published")
    module = ResNet18(width=4)
    images = fixture.inputs["resnet.x"].transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    host = WeightSpec.from_module(module, shapes, collections=("params", "batch_stats"))
    state = [fixture.params[f"resnet.{name}"].reshape(-1) for name in host.names]
    base = host.unflatten(np.concatenate(state))
    wanted = last_norms("resnet18", module)
    part = WeightSpec.from_module(module, shapes).subset(wanted.__contains__)
    np.testing.assert_array_equal(part.flatten(base), fixture.outputs["resnet.bn_subset"])
    logits = quick_jit(part.apply)(fixture.inputs["resnet.subset_vector"], images, base)
    fixtures.assert_close(logits, fixture.outputs["resnet.logits_subset"], 3e-6)
