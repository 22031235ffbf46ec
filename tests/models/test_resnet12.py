"""ResNet-12: sizes, modes, what an image's features may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.models.resnet12 import ResNet12


@pytest.fixture(scope="module")
def module():
    return ResNet12((4, 6, 6, 8), num_classes=3)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 21, 18, 1))


@pytest.fixture(scope="module")
def variables(module, images):
    return jax.jit(module.init)(jax.random.key(1), images)


@pytest.fixture(scope="module")
def apply(module):
    return jax.jit(module.apply, static_argnames=("train", "return_stages", "method", "mutable"))


def test_published_size():
    shapes = jax.eval_shape(ResNet12().init, jax.random.key(0), jnp.zeros((1, 80, 80, 3)))
    count = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"params": 7_989_120 + 7_680, "batch_stats": 7_680}
    features, stages = jax.eval_shape(
        lambda v, x: ResNet12().apply(v, x, return_stages=True), shapes, jnp.zeros((2, 84, 84, 3))
    )
    assert features.shape == (2, 512)
    assert [s.shape[1] for s in stages.values()] == [42, 21, 10, 5]


def test_initial_variance():
    params = ResNet12((64,)).init(jax.random.key(0), jnp.zeros((1, 2, 2, 64)))["params"]
    kernel = np.asarray(params["layer1"]["conv1"]["kernel"])
    np.testing.assert_allclose(kernel.var(), 2 / (9 * 64), rtol=0.03)
    # Untruncated: some draws lie beyond three standard deviations.
    assert np.abs(kernel).max() > 3.5 * kernel.std()


def test_pooling_floors_and_pools_maxima(apply, variables, images):
    _, stages = apply(variables, images, return_stages=True)
    assert [s.shape[1:3] for s in stages.values()] == [(10, 9), (5, 4), (2, 2), (1, 1)]


def test_features_do_not_depend_on_the_batch(apply, variables, images):
    together = apply(variables, images)
    np.testing.assert_allclose(apply(variables, images[2:3]), together[2:3], atol=2e-6)
    np.testing.assert_array_equal(apply(variables, images[::-1]), together[::-1])


def test_training_mode_normalises_by_the_batch_and_moves_the_statistics(apply, variables, images):
    kwargs = {"train": True, "mutable": ("batch_stats",)}
    features, updates = apply(variables, images, **kwargs)
    shifted, _ = apply(variables, 2 * images, **kwargs)
    # Only the eps of BatchNorm sees the scale.
    np.testing.assert_allclose(shifted, features, atol=1e-2)
    means = updates["batch_stats"]["layer1"]["bn1"]["mean"]
    kernel = variables["params"]["layer1"]["conv1"]["kernel"]
    conv = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(means, 0.1 * conv.mean((0, 1, 2)), atol=1e-6)


def test_classifier_is_linear_in_the_features(apply, variables, images):
    features, head = apply(variables, images), variables["params"]["classifier"]
    logits = apply(variables, images, method="logits")
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], atol=1e-5)


def test_refusals(module, variables, images):
    with pytest.raises(ValueError, match=r"must be \(B, H, W, C\) with sides of at least 16"):
        module.apply(variables, images[:, :12])
    with pytest.raises(ValueError, match="give it num_classes"):
        ResNet12((4, 6, 6, 8)).apply(variables, images, method="logits")
