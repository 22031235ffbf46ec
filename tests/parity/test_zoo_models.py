"""Base models and their weight vectors against the zoos' code, kuangliu's ResNet and timm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.models import CNN, last_norms, registry
from flown_jax.torch_import import convert
from flown_jax.training import optimizers
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import quick_jit
from tests.parity.fixtures import assert_close, load

# Of the fixture: a LayerNorm eps of 1e-5 for 1e-6 shows at 5e-6.
TOLERANCE = 3e-6
CNN_CASES = ("small1.", "small3.", "medium1.", "medium3.", "dropout.")
# Which convolutions the classes of the zoos' code pool; the other sizes are the arrays' own.
POOLS = {"CNN": (True, True, False), "CNN2": (True, True, False), "CNN3": (True, True, True)}


@pytest.fixture(scope="module")
def fixture(source):
    return load("zoo_models", source)


def part(arrays, case):
    return {k.removeprefix(case): v for k, v in arrays.items() if k.startswith(case)}


def nhwc(images):
    return np.moveaxis(images, 1, -1) if images.ndim == 4 else images


def cnn_sizes(config, state):
    kernels = [value.shape for name, value in state.items() if name.endswith("weight")]
    convs, linears = ([s for s in kernels if len(s) == rank] for rank in (4, 2))
    return {
        "channels": [s[0] for s in convs],
        "kernels": [s[2] for s in convs],
        "pools": POOLS[config["cls"]],
        "hidden": [s[0] for s in linears[:-1]],
        "num_classes": linears[-1][0],
        "activation": config["nlin"],
        "dropout": config["dropout"],
    }


def nll(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


def subset_of(spec, names):
    return spec.subset(set(names).__contains__)


@pytest.mark.parametrize("case", CNN_CASES)
def test_zoo_cnn(fixture, case):
    config, state = fixture.config[case], part(fixture.params, case)
    sizes = cnn_sizes(config, state)
    module = registry.build("cnn", sizes)
    image = {"in_channels": config["channels"], "image_size": config["side"]}
    variables = convert("cnn", state, sizes | image)
    inputs, outputs = part(fixture.inputs, case), part(fixture.outputs, case)
    apply = quick_jit(functools.partial(module.apply, return_stages=True))
    logits, stages = apply(variables, nhwc(inputs["x"]))
    assert_close(logits, outputs["logits"], TOLERANCE, "logits")
    for name, stage in stages.items():
        assert_close(stage[:1], nhwc(outputs[name]), TOLERANCE, name)
    assert_close(nll(logits, inputs["y"]), outputs["nll"], TOLERANCE, "nll")
    assert int((logits.argmax(-1) == inputs["y"]).sum()) == int(outputs["correct"])

    spec = WeightSpec.from_module(module, variables)
    assert list(spec.names) == list(state)
    assert sorted({int(name.split(".")[1]) for name in state}) == config["layers"]
    assert spec.size == config["params"]
    vector = spec.flatten(variables)
    np.testing.assert_array_equal(vector, outputs["vector"])
    jax.tree.map(np.testing.assert_array_equal, spec.unflatten(vector), variables)


def test_adam_steps(fixture):
    config, inputs = fixture.config["adam."], part(fixture.inputs, "adam.")
    outputs = part(fixture.outputs, "adam.")
    kind, channels, *_, activation = config["net"].split()
    images, start = nhwc(inputs["x"]), jnp.asarray(inputs["vector"])
    assert images.shape[-1] == int(channels)
    module = CNN(pools=POOLS[kind], activation=activation)
    fixed = module.kernel_shapes(images.shape[-1], module.flat_size(*images.shape[1:3]))
    fixed = sum(np.prod(shape) + shape[-1] for shape in list(fixed.values())[:-1])
    classes = (start.size - fixed) // (module.hidden[-1] + 1)
    module = module.clone(num_classes=int(classes))
    spec = WeightSpec.from_module(
        module, jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(images.shape))
    )
    optimizer = optimizers.adam(
        config["lr"], weight_decay=config["weight_decay"], steps=config["steps"]
    )

    def objective(params, images, labels):
        return nll(module.apply({"params": params}, images), labels)

    @quick_jit
    def step(params, state, images, labels):
        loss, gradient = jax.value_and_grad(objective)(params, images, labels)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = spec.unflatten(start)["params"]
    state, losses, vectors = optimizer.init(params), [], []
    for _ in range(config["steps"]):
        params, state, loss = step(params, state, images, inputs["y"])
        losses.append(loss)
        vectors.append(spec.flatten({"params": params}))
    assert_close(jnp.stack(losses), outputs["loss"], 1e-5, "loss")
    moved = config["lr"] * config["steps"]
    assert np.abs(np.stack(vectors) - outputs["vectors"]).max() < 1e-3 * moved


@pytest.fixture(scope="module")
def resnet(fixture):
    config, state = fixture.config["resnet."], part(fixture.params, "resnet.")
    sizes = {"width": config["width"], "num_classes": config["classes"]}
    variables = convert("resnet18", state, sizes | {"in_channels": config["channels"]})
    return registry.build("resnet18", sizes), variables


def test_resnet(fixture, resnet):
    module, variables = resnet
    config, outputs = fixture.config["resnet."], part(fixture.outputs, "resnet.")
    images = nhwc(fixture.inputs["resnet.x"])
    apply = quick_jit(functools.partial(module.apply, return_stages=True))
    logits, stages = apply(variables, images)
    assert_close(logits, outputs["logits"], TOLERANCE, "logits")
    for i in (1, 2, 3, 4):
        assert_close(stages[f"layer{i}"][:1], nhwc(outputs[f"stage_{i}"]), TOLERANCE, f"stage {i}")

    spec = WeightSpec.from_module(module, variables)
    assert (list(spec.names), spec.size) == (config["order"], config["num_parameters"])
    names = last_norms("resnet18", module)
    assert list(names) == config["subset"]
    subset = subset_of(spec, names)
    np.testing.assert_array_equal(subset.flatten(variables), outputs["bn_subset"])
    changed = subset.unflatten(jnp.asarray(fixture.inputs["resnet.subset_vector"]), variables)
    assert_close(apply(changed, images)[0], outputs["logits_subset"], TOLERANCE, "subset")


def test_resnet_in_training(fixture, resnet):
    module, variables = resnet
    outputs = part(fixture.outputs, "resnet.")
    images = nhwc(fixture.inputs["resnet.x"])
    apply = quick_jit(functools.partial(module.apply, train=True, mutable=["batch_stats"]))
    logits, updates = apply(variables, images)
    assert_close(logits, outputs["logits_train_mode"], TOLERANCE, "logits")
    paths, prefix = module.state_dict_names(), "after_one_training_pass."
    found = {k.removeprefix(prefix): v for k, v in outputs.items() if k.startswith(prefix)}
    assert found
    for name, expected in found.items():
        _, *layer, leaf = paths[name].split("/")
        old, new = (
            np.asarray(functools.reduce(dict.__getitem__, layer, tree["batch_stats"])[leaf])
            for tree in (variables, updates)
        )
        if leaf == "var":
            # torch keeps the unbiased variance of the batch, linen the biased one.
            stage = int(name[5]) if name.startswith("layer") else 1
            count = images.shape[0] * np.prod([s // 2 ** (stage - 1) for s in images.shape[1:3]])
            new = 0.9 * old + (new - 0.9 * old) * count / (count - 1)
        assert_close(new, expected, TOLERANCE, name)


@pytest.mark.parametrize("case", ["vit.", "convnext."])
def test_timm_network(fixture, case):
    config, outputs = fixture.config[case], part(fixture.outputs, case)
    kind, images = case[:-1], nhwc(fixture.inputs[f"{case}x"])
    fields = ("patch_size", "embed_dim", "depth", "num_heads", "depths", "dims", "num_classes")
    sizes = {name: config[name] for name in fields if name in config}
    image = {"in_channels": images.shape[-1]}
    image |= {"img_size": config["img_size"]} if kind == "vit" else {}
    state = part(fixture.params, case)
    module, variables = registry.build(kind, sizes), convert(kind, state, sizes | image)
    apply = quick_jit(functools.partial(module.apply, return_stages=True))
    logits, stages = apply(variables, images)
    assert_close(logits, outputs["logits"], TOLERANCE, "logits")
    ours = {
        "vit": {"tokens_in": "tokens", "block_0": "block_0", "features": "norm"},
        # timm's fixture counts the stages from 1.
        "convnext": {"stem": "stem", "stage_1": "stage_0", "features": f"stage_{len(stages) - 2}"},
    }[kind]
    for name, stage in ours.items():
        assert_close(stages[stage][:1], nhwc(outputs[name]), TOLERANCE, name)

    spec = WeightSpec.from_module(module, variables)
    assert (list(spec.names), spec.size) == (list(state), config["num_parameters"])
    names = last_norms(kind, module)
    assert list(names) == config["subset"]
    subset = subset_of(spec, names)
    np.testing.assert_array_equal(subset.flatten(variables), outputs["norm_subset"])
