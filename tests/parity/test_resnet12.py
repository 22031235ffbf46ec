"""ResNet-12 and its cosine and distance heads against the official code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.models.heads import class_mean, cosine_class_mean, logits
from flown_jax.models.resnet12 import ResNet12
from flown_jax.torch_import import convert
from tests.parity.fixtures import assert_close, load

# Of the fixture: a BatchNorm eps of 1e-6 shows at 3.4e-5.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def fixture(source):
    return load("resnet12", source)


@pytest.fixture(scope="module")
def network(fixture):
    config = dict(fixture.config)
    config["in_channels"] = fixture.inputs["image"].shape[1]
    return ResNet12(tuple(config["channels"])), convert("resnet12", fixture.params, config)


def _nhwc(images):
    return np.moveaxis(images, -3, -1)


def test_features_and_stages(fixture, network):
    module, variables = network
    images = _nhwc(fixture.inputs["image"])
    pooled, stages = module.apply(variables, images, return_stages=True)
    assert_close(pooled, fixture.outputs["pooled"], TOLERANCE, "pooled")
    for name, stage in stages.items():
        assert_close(stage, _nhwc(fixture.outputs[name]), TOLERANCE, name)


def test_training_mode_and_running_statistics(fixture, network):
    module, variables = network
    images = _nhwc(fixture.inputs["image"])
    pooled, updates = module.apply(variables, images, train=True, mutable=["batch_stats"])
    assert_close(pooled, fixture.outputs["train.pooled"], TOLERANCE, "train.pooled")
    keep = 1.0 - fixture.config["bn_momentum_torch"]
    batch, side_h, side_w = images.shape[:3]
    for i in range(1, len(fixture.config["channels"]) + 1):
        count = batch * side_h * side_w
        for torch_name, name in [
            ("bn1", "bn1"),
            ("bn2", "bn2"),
            ("bn3", "bn3"),
            ("downsample.1", "shortcut_bn"),
        ]:
            prefix = f"train.encoder.layer{i}.{torch_name}."
            new = updates["batch_stats"][f"layer{i}"][name]
            old = variables["batch_stats"][f"layer{i}"][name]
            assert_close(
                new["mean"], fixture.outputs[f"{prefix}running_mean"], TOLERANCE, prefix + "mean"
            )
            # torch keeps the unbiased variance of the batch, linen the biased one.
            batch_part = np.asarray(new["var"]) - keep * old["var"]
            unbiased = keep * old["var"] + batch_part * count / (count - 1)
            assert_close(
                unbiased, fixture.outputs[f"{prefix}running_var"], TOLERANCE, prefix + "var"
            )
        side_h, side_w = side_h // 2, side_w // 2


def test_cosine_and_distance_heads(fixture, network):
    module, variables = network
    temperature = fixture.config["head"]["temperature"]
    apply = jax.jit(module.apply)  # one program, as in use: a step at a time rounds twice as much

    def features(images):
        flat = _nhwc(images).reshape(-1, *_nhwc(images).shape[-3:])
        return apply(variables, flat).reshape(*images.shape[:-3], -1)

    support, query = (
        features(fixture.inputs["head.support"]),
        features(fixture.inputs["head.query"]),
    )
    length = jnp.linalg.norm(query, axis=-1, keepdims=True)
    cosine = temperature * logits(cosine_class_mean(support), query / length)
    assert_close(cosine, fixture.outputs["head.cos"], TOLERANCE, "head.cos")
    means = support.mean(-2)
    squared = -temperature * ((query[..., :, None, :] - means[..., None, :, :]) ** 2).sum(-1)
    assert_close(squared, fixture.outputs["head.sqr"], TOLERANCE, "head.sqr")
    # The same as one linear head, up to |x|^2 and the rounding of that difference.
    linear = temperature * (logits(class_mean(support), query) - length**2)
    assert float(jnp.abs(linear - squared).max()) <= 1e-6 * temperature * float((length**2).max())
