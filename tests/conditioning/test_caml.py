"""CAML: what must not change its answers, and what must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.conditioning import CAML

WAY, SHOT, QUERIES, WIDTH = 4, 2, 5, 12


@pytest.fixture(scope="module")
def module():
    return CAML(
        num_classes=6, label_dim=8, num_layers=2, num_heads=4, mlp_dim=24, feature_dim=WIDTH
    )


@pytest.fixture(scope="module")
def apply(module):
    return jax.jit(module.apply, static_argnames=("method", "layer"))


@pytest.fixture(scope="module")
def episode():
    key_support, key_query = jax.random.split(jax.random.key(0))
    support = jax.random.normal(key_support, (3, WAY * SHOT, WIDTH))
    query = jax.random.normal(key_query, (3, QUERIES, WIDTH))
    return support, jnp.repeat(jnp.arange(WAY), SHOT), query


@pytest.fixture(scope="module")
def variables(module, episode):
    variables = jax.jit(module.init)(jax.random.key(1), *episode)
    # At init the unknown vector is zero and the scale 1: move both, so that tests see them.
    unknown = 0.5 * jax.random.normal(jax.random.key(2), (module.label_dim,))
    params = variables["params"] | {"unknown": unknown, "elmes_scale": jnp.float32(1.3)}
    return {"params": params}


def test_first_token_path_equals_whole_sequences(module, apply, variables, episode):
    sequences = apply(variables, *episode, method="sequences")
    assert sequences.shape == (3, QUERIES, 1 + WAY * SHOT, WIDTH + module.label_dim)
    out, layers = apply(variables, sequences, method="encode")
    embeddings = apply(variables, *episode, method="query_embeddings")
    np.testing.assert_allclose(embeddings, out[..., 0, :], atol=2e-6)
    for i, layer in enumerate(layers):
        token = apply(variables, *episode, layer=i, method="query_embeddings")
        np.testing.assert_allclose(token, layer[..., 0, :], atol=2e-6)


def test_init_makes_all_parameters_whatever_the_method(module, variables, episode):
    other = jax.eval_shape(
        lambda key: module.init(key, *episode, layer=0, method="query_embeddings"),
        jax.random.key(0),
    )
    assert jax.tree.structure(other) == jax.tree.structure(variables)


def test_order_of_the_support_is_irrelevant(module, apply, variables, episode):
    support, labels, query = episode
    order = jax.random.permutation(jax.random.key(3), WAY * SHOT)
    before = apply(variables, support, labels, query)
    after = apply(variables, support[:, order], labels[order], query)
    np.testing.assert_allclose(after, before, atol=2e-6)


def test_queries_do_not_see_each_other(module, apply, variables, episode):
    support, labels, query = episode
    together = apply(variables, support, labels, query)
    alone = apply(variables, support, labels, query[:, 2:3])
    np.testing.assert_allclose(alone, together[:, 2:3], atol=2e-6)
    flipped = apply(variables, support, labels, query[:, ::-1])
    np.testing.assert_allclose(flipped, together[:, ::-1], atol=2e-6)


def test_episodes_do_not_see_each_other(module, apply, variables, episode):
    support, labels, query = episode
    together = apply(variables, support, labels, query)
    alone = apply(variables, support[1], labels, query[1])
    np.testing.assert_allclose(alone, together[1], atol=2e-6)


def test_label_rows_name_the_classes(module, apply, variables, episode):
    support, labels, query = episode
    rows = jnp.asarray([4, 0, 5, 2])
    named = apply(variables, support, labels, query, rows)
    whole = apply(variables, support, rows[labels], query)
    assert whole.shape[-1] == module.num_classes
    np.testing.assert_allclose(named, whole[..., rows], atol=1e-6)
    each = apply(variables, support, labels, query, jnp.stack([rows, rows[::-1], rows]))
    np.testing.assert_allclose(each[0], named[0], atol=2e-6)
    assert np.abs(each[1] - named[1]).max() > 1e-3


def test_support_tokens_attend_to_the_query(module, apply, variables, episode):
    support, labels, query = episode
    sequences = apply(variables, support, labels, query, method="sequences")
    changed = sequences.at[..., 0, 0].add(5.0)
    before, after = (apply(variables, s, method="encode")[0] for s in (sequences, changed))
    assert np.abs(before - after)[..., 1:, :].max() > 1e-3


def test_refusals(module, variables, episode):
    support, labels, query = episode
    with pytest.raises(ValueError, match="must end in the feature width 12"):
        module.apply(variables, support, labels, query[..., :-1])
    with pytest.raises(ValueError, match=r"An episode of 7 classes .* this CAML has 6"):
        module.apply(variables, support, labels, query, jnp.arange(7))
    with pytest.raises(ValueError, match=r"An episode of 9 classes .* this CAML has 6"):
        module.apply(variables, support, labels.at[0].set(8), query)
    with pytest.raises(ValueError, match="one label for each of the 8 support images"):
        module.apply(variables, support, labels[1:], query)
    with pytest.raises(ValueError, match="must agree in their episode axes"):
        module.apply(variables, support[0], labels, query)
    with pytest.raises(ValueError, match=r"layer must be None or 0\.\.1, not 2"):
        module.apply(variables, support, labels, query, layer=2, method="query_embeddings")
    odd = CAML(num_classes=6, label_dim=8, num_layers=1, num_heads=3, mlp_dim=8)
    with pytest.raises(ValueError, match=r"num_heads=3 must divide the token width 12 \+ 8"):
        odd.init(jax.random.key(0), support, labels, query)
