"""Episodes through CAML: leaks, namings, class means, and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flown_jax.conditioning import (
    CAML,
    SlotStandardizer,
    caml_loss,
    class_embeddings,
    class_means,
    predict,
    random_label_rows,
)
from flown_jax.evaluation import accuracy

BATCH, WAY, SHOT, QUERIES, WIDTH = 3, 3, 2, 4, 8


@pytest.fixture(scope="module")
def module():
    return CAML(num_classes=5, label_dim=8, num_layers=1, num_heads=2, mlp_dim=16)


@pytest.fixture(scope="module")
def data():
    key_support, key_query = jax.random.split(jax.random.key(0))
    support = jax.random.normal(key_support, (BATCH, WAY, SHOT, WIDTH))
    return support, jax.random.normal(key_query, (BATCH, WAY, QUERIES, WIDTH))


@pytest.fixture(scope="module")
def variables(module, data):
    support, query = data
    return jax.jit(module.init)(
        jax.random.key(1), support[0, :, 0], jnp.arange(WAY), query[0].reshape(-1, WIDTH)
    )


@pytest.fixture(scope="module")
def embed(module, variables):
    """`class_embeddings` of this module, compiled."""
    function = functools.partial(class_embeddings, module, variables)
    return jax.jit(function, static_argnames=("query_source", "layer", "chunk"))


@pytest.fixture(scope="module")
def query_tokens(module, variables):
    """Query tokens of an episode, or of episodes, whose support is given by class."""

    @functools.partial(jax.jit, static_argnames="layer")
    def tokens(support, queries, layer=None):
        labels = jnp.repeat(jnp.arange(WAY), SHOT)
        flat = support.reshape(len(support), -1, WIDTH)
        queries = queries.reshape(len(support), -1, WIDTH)
        return module.apply(
            variables, flat, labels, queries, layer=layer, method="query_embeddings"
        )

    return tokens


@pytest.fixture(scope="module")
def predicted(module, variables):
    """`predict` of this module, compiled."""
    return jax.jit(functools.partial(predict, module, variables), static_argnames="average_namings")


@pytest.mark.parametrize("source", ["support", "leave_one_out", "one_per_class"])
def test_condition_is_bitwise_independent_of_the_queries(module, embed, data, source):
    support, query = data
    kwargs = {"query_source": source, "key": jax.random.key(5)}
    first = embed(support, query=query, **kwargs)
    second = embed(support, query=-3 * query[:, ::-1], **kwargs)
    assert first.shape == (BATCH, WAY, WIDTH + module.label_dim)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("source", ["one_per_class", "query_predicted"])
def test_chunks_change_nothing(embed, data, source):
    support, query = data
    kwargs = {"query_source": source, "query": query, "key": jax.random.key(5)}
    whole = embed(support, **kwargs)
    chunked = embed(support, chunk=2, **kwargs)
    np.testing.assert_allclose(chunked, whole, atol=2e-6)


def test_support_and_layer(embed, query_tokens, data):
    support, _ = data
    for layer in (None, 0):
        tokens = query_tokens(support, support, layer=layer)
        expected = tokens.reshape(BATCH, WAY, SHOT, -1).mean(2)
        actual = embed(support, layer=layer)
        np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_leave_one_out_leaves_the_image_out(module, variables, embed, data):
    support, _ = data
    flat, labels = support[0].reshape(-1, WIDTH), np.repeat(np.arange(WAY), SHOT)
    apply = jax.jit(functools.partial(module.apply, method="query_embeddings"))
    tokens = []
    for i in range(len(flat)):
        rest = np.delete(np.arange(len(flat)), i)
        tokens.append(apply(variables, flat[rest], labels[rest], flat[i : i + 1])[0])
    expected = np.stack(tokens).reshape(WAY, SHOT, -1).mean(1)
    actual = embed(support, query_source="leave_one_out")
    np.testing.assert_allclose(actual[0], expected, atol=2e-6)


def test_query_sources_group_as_they_say(embed, query_tokens, predicted, data):
    support, query = data
    tokens = query_tokens(support, query)
    by_truth = embed(support, query=query, query_source="query_true")
    expected = tokens.reshape(BATCH, WAY, QUERIES, -1).mean(2)
    np.testing.assert_allclose(by_truth, expected, atol=2e-6)

    choice = predicted(support, query).argmax(-1)
    grouped = embed(support, query=query, query_source="query_predicted")
    of_support = embed(support)
    for b in range(BATCH):
        for c in range(WAY):
            members = np.flatnonzero(choice[b] == c)
            expected = tokens[b, members].mean(0) if len(members) else of_support[b, c]
            np.testing.assert_allclose(grouped[b, c], expected, atol=2e-6)
    # Grouping by prediction cannot use the order of the classes in the query set.
    again = embed(support, query=query[:, ::-1], query_source="query_predicted")
    np.testing.assert_allclose(again, grouped, atol=2e-6)


def test_class_means():
    embeddings = jnp.asarray([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    means = class_means(embeddings, jnp.asarray([1, 1, 0]), 3)
    np.testing.assert_allclose(means, [[5.0, 5.0], [2.0, 1.0], [0.0, 0.0]])


def test_namings_are_injective_and_cover_all_rows():
    rows = np.asarray(random_label_rows(jax.random.key(0), 400, 3, 7))
    assert all(len(set(row)) == 3 for row in rows)
    assert set(rows[:, 0]) == set(range(7))
    counts = np.bincount(rows.ravel(), minlength=7)
    assert counts.min() > 0.7 * counts.mean()


def test_loss_is_the_cross_entropy_of_the_drawn_naming(module, variables, predicted, data):
    support, query = data
    key = jax.random.key(9)
    loss, aux = caml_loss(module, variables, key, support, query)
    rows = random_label_rows(key, BATCH, WAY, module.num_classes)
    log_probs = predicted(support, query, label_rows=rows)
    labels = np.repeat(np.arange(WAY), QUERIES)
    np.testing.assert_allclose(
        loss, -log_probs[:, np.arange(len(labels)), labels].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(aux["accuracy"], accuracy(log_probs, labels).mean(), atol=1e-6)


def test_averaging_over_cyclic_namings(predicted, data):
    support, query = data
    averaged = predicted(support, query, average_namings=True)
    np.testing.assert_allclose(np.exp(averaged).sum(-1), 1.0, atol=1e-5)
    rows = jnp.arange(WAY)
    mean = np.mean(
        [predicted(support, query, label_rows=jnp.roll(rows, shift)) for shift in range(WAY)],
        axis=0,
    )
    np.testing.assert_allclose(averaged, jax.nn.log_softmax(mean), atol=2e-6)
    # A cyclic shift of the classes permutes the namings: exact equivariance.
    shifted = predicted(jnp.roll(support, 1, axis=1), query, average_namings=True)
    np.testing.assert_allclose(shifted, np.roll(averaged, 1, axis=-1), atol=5e-6)


def test_slot_standardizer():
    embeddings = 3.0 * jax.random.normal(jax.random.key(0), (500, 2, 4)) + jnp.arange(8.0).reshape(
        2, 4
    )
    embeddings = embeddings.at[:, 1, 2].set(7.0)
    standardizer = SlotStandardizer.fit(embeddings)
    out = np.asarray(standardizer.apply(embeddings))
    np.testing.assert_allclose(out.mean(0), 0.0, atol=1e-5)
    expected = np.ones((2, 4))
    expected[1, 2] = 0.0  # A constant dimension stays at zero.
    np.testing.assert_allclose(out.std(0), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"must end in the fitted slots \(2, 4\)"):
        standardizer.apply(embeddings[:, :1])
    with pytest.raises(ValueError, match="wants embeddings"):
        SlotStandardizer.fit(embeddings[0])


def test_refusals(module, variables, data):
    support, query = data
    with pytest.raises(ValueError, match="query_source must be one of support"):
        class_embeddings(module, variables, support, query_source="queries")
    with pytest.raises(ValueError, match="needs the query images by class"):
        class_embeddings(module, variables, support, query_source="query_true")
    with pytest.raises(ValueError, match="give a key"):
        class_embeddings(module, variables, support, query_source="one_per_class")
    with pytest.raises(ValueError, match="at least 2 support images a class"):
        class_embeddings(module, variables, support[:, :, :1], query_source="leave_one_out")
    many = jnp.concatenate([support, support], axis=1)
    with pytest.raises(ValueError, match=r"An episode of 6 classes .* this CAML has 5"):
        predict(module, variables, many, query)
    with pytest.raises(ValueError, match=r"An episode of 6 classes .* this CAML has 5"):
        caml_loss(module, variables, jax.random.key(0), many, many)
    with pytest.raises(ValueError, match="wants image features"):
        caml_loss(module, variables, jax.random.key(0), support, query[:, :2])


def test_learns_separable_classes_of_any_way():
    """Above 90 % on new Gaussian classes, at ways it was and was not trained for."""
    module = CAML(num_classes=6, label_dim=8, num_layers=2, num_heads=2, mlp_dim=32, feature_dim=8)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))

    def episodes(key, batch, way):
        key_mean, key_noise = jax.random.split(key)
        means = jax.random.normal(key_mean, (batch, way, 1, 8))
        images = means + 0.15 * jax.random.normal(key_noise, (batch, way, 3, 8))
        return images[:, :, :1], images[:, :, 1:]

    def step(carry, key):
        variables, state = carry
        key_naming, key_data = jax.random.split(key)
        support, query = episodes(key_data, 16, 5)
        gradient, aux = jax.grad(
            lambda v: caml_loss(module, v, key_naming, support, query), has_aux=True
        )(variables)
        updates, state = optimizer.update(gradient, state, variables)
        return (optax.apply_updates(variables, updates), state), aux["accuracy"]

    key_init, key_train, key_test = jax.random.split(jax.random.key(0), 3)
    support, query = episodes(key_test, 40, 5)
    variables = jax.jit(module.init)(key_init, support[0, :, 0], jnp.arange(5), query[0, 0])
    (variables, _), _ = jax.jit(lambda v, keys: jax.lax.scan(step, (v, optimizer.init(v)), keys))(
        variables, jax.random.split(key_train, 400)
    )
    for way in (5, 3):
        support, query = episodes(key_test, 40, way)
        log_probs = jax.jit(predict, static_argnums=0)(module, variables, support, query)
        assert accuracy(log_probs, np.repeat(np.arange(way), 2)).mean() > 0.9
