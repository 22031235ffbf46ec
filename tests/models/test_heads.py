"""Linear heads: closed forms, torch's AdamW, and the transform before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models.heads import (
    FeatureTransform,
    class_mean,
    cosine_class_mean,
    fit_adamw,
    from_vector,
    lda,
    logits,
    ridge,
    to_vector,
    within_class_covariance,
)

TASKS, WAY, SHOT, WIDTH = 7, 3, 2, 10


@pytest.fixture(scope="module")
def features():
    return jax.random.normal(jax.random.key(0), (TASKS, WAY, SHOT, WIDTH))


@pytest.fixture(scope="module")
def query():
    return jax.random.normal(jax.random.key(1), (TASKS, 6, WIDTH))


@pytest.mark.parametrize("use_bias", [False, True])
def test_adamw_is_torchs(features, use_bias):
    torch = pytest.importorskip("torch")
    steps, options = 30, {"learning_rate": 1e-2, "weight_decay": 1e-1}
    ours = fit_adamw(features, steps=steps, use_bias=use_bias, **options)
    for task in range(2):
        x = torch.tensor(np.asarray(features[task]).reshape(-1, WIDTH))
        y = torch.arange(WAY).repeat_interleave(SHOT)
        linear = torch.nn.Linear(WIDTH, WAY, bias=use_bias)
        for parameter in linear.parameters():
            torch.nn.init.zeros_(parameter)
        optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-2, weight_decay=1e-1)
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(linear(x), y).backward()
            optimizer.step()
        # In a balanced task the first gradient of the bias is rounding noise, which Adam blows up
        # to a step of lr; with a bias the two runs part by that much and no more.
        bias = linear.bias.detach().numpy() if use_bias else np.zeros(WAY)
        np.testing.assert_allclose(ours[task, :, -1], bias, atol=2e-2 if use_bias else 0.0)
        weight = linear.weight.detach().numpy()
        np.testing.assert_allclose(ours[task, :, :-1], weight, atol=2e-3 if use_bias else 2e-5)


def test_adamw_first_step_is_a_sign(features):
    heads = fit_adamw(features, steps=1, learning_rate=0.5, weight_decay=0.3)
    means = features.mean(2)
    expected = 0.5 * jnp.sign(means - means.mean(1, keepdims=True))
    np.testing.assert_allclose(heads[..., :-1], expected, atol=1e-4)
    np.testing.assert_array_equal(heads[..., -1], 0.0)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_adamw_chunks_change_nothing(features, chunk):
    whole = fit_adamw(features, steps=5, chunk=TASKS)
    np.testing.assert_allclose(fit_adamw(features, steps=5, chunk=chunk), whole, atol=1e-6)


def test_class_mean_ranks_by_distance(features, query):
    scores = logits(class_mean(features), query)
    distance = ((query[:, :, None] - features.mean(2)[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(scores, (query**2).sum(-1, keepdims=True) - distance, atol=1e-4)


def test_cosine_class_mean(features, query):
    scores = logits(cosine_class_mean(features), query)
    mean = np.asarray(features.mean(2))
    expected = np.einsum("tqf,tnf->tqn", query, mean) / np.linalg.norm(mean, axis=-1)[:, None]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
def test_ridge_solves_its_normal_equations_in_both_forms(features, use_bias):
    kwargs = {"l2": 0.7, "use_bias": use_bias}
    primal = ridge(features, dual=False, **kwargs)
    np.testing.assert_allclose(ridge(features, dual=True, **kwargs), primal, atol=1e-5)
    np.testing.assert_allclose(ridge(features, **kwargs), primal, atol=1e-5)

    def objective(head):
        rows = features[0].reshape(-1, WIDTH)
        labels = jnp.repeat(jnp.eye(WAY), SHOT, axis=0)
        return ((logits(head, rows) - labels) ** 2).sum() + 0.7 * (head[:, :-1] ** 2).sum()

    gradient = jax.grad(objective)(primal[0])
    gradient = gradient if use_bias else gradient[:, :-1]
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)


def test_lda_is_the_posterior_of_gaussian_classes(features, query):
    mix = np.random.RandomState(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    within = mix @ mix.T / WIDTH + 0.3 * np.eye(WIDTH, dtype=np.float32)
    centre = np.full(WIDTH, 0.2, np.float32)
    scores = logits(lda(features, jnp.asarray(within), centre, shrinkage=0.0), query)
    gap = np.asarray(query)[:, :, None] - np.asarray(features.mean(2))[:, None]
    mahalanobis = np.einsum("tqnf,fg,tqng->tqn", gap, np.linalg.inv(within), gap)
    np.testing.assert_allclose(
        jax.nn.log_softmax(scores), jax.nn.log_softmax(-mahalanobis / 2), atol=2e-3
    )


def test_within_class_covariance():
    draws = np.random.RandomState(0).normal(size=(400, 20, 3)) * [1.0, 2.0, 3.0]
    shifted = draws + np.random.RandomState(1).normal(size=(400, 1, 3)) * 10
    covariance = within_class_covariance(jnp.asarray(shifted, jnp.float32))
    np.testing.assert_allclose(covariance, np.diag([1.0, 4.0, 9.0]), atol=0.25)


@pytest.mark.parametrize("unit_first", [False, True])
def test_feature_transform(unit_first):
    x = 5.0 + jax.random.normal(jax.random.key(0), (4, 30, WIDTH))
    transform = FeatureTransform.fit(x, scale=3.0, unit_first=unit_first)
    out = transform.apply(x)
    np.testing.assert_allclose(jnp.linalg.norm(out, axis=-1), 3.0, rtol=1e-5)
    rows = np.asarray(x).reshape(-1, WIDTH)
    if unit_first:
        rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    centred = rows - rows.mean(0)
    expected = 3.0 * centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    np.testing.assert_allclose(out.reshape(-1, WIDTH), expected, atol=1e-4)
    if unit_first:
        np.testing.assert_allclose(transform.apply(7.0 * x), out, atol=1e-4)
    leaves = jax.tree.leaves(transform)
    assert [leaf.shape for leaf in leaves] == [(WIDTH,), ()]


def test_the_transform_is_the_same_to_the_last_bit_on_any_number_of_cores():
    x = np.random.default_rng(0).normal(size=(5000, WIDTH)).astype(np.float32)
    found = FeatureTransform.fit(jnp.asarray(x), scale=1.0).mean
    np.testing.assert_array_equal(found, x.astype(np.float64).mean(0).astype(np.float32))


def test_refusals(features, query):
    with pytest.raises(ValueError, match="one column more"):
        logits(jnp.zeros((TASKS, WAY, WIDTH)), query)
    with pytest.raises(ValueError, match="wants features"):
        fit_adamw(features[0])
    with pytest.raises(ValueError, match="l2 > 0, not 0"):
        ridge(features, l2=0.0)
    with pytest.raises(ValueError, match="must end in the fitted width"):
        FeatureTransform.fit(features, scale=1.0).apply(query[..., 1:])


def test_vectors_are_laid_out_as_a_torch_state_dict():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(5, 4)
    expected = torch.cat([p.detach().ravel() for p in layer.state_dict().values()]).numpy()
    weight, bias = (p.detach().numpy() for p in layer.state_dict().values())
    head = jnp.concatenate([jnp.asarray(weight), jnp.asarray(bias)[:, None]], axis=-1)
    np.testing.assert_array_equal(to_vector(head), expected)
    heads = jax.random.normal(jax.random.key(2), (20, 4, 6))
    np.testing.assert_array_equal(from_vector(to_vector(heads), 4), heads)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(UserError, match="a vector of length 25 is no head of 4 classes"):
        from_vector(jnp.zeros((2, 25)), 4)
