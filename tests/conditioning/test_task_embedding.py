"""Class tokens side by side, and one vector a task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.conditioning.task_embedding import TaskEmbedding, class_tokens

A = jnp.arange(24.0).reshape(2, 3, 4)
B = -jnp.arange(12.0).reshape(2, 3, 2)


def test_tokens_stand_in_the_order_of_their_names():
    expected = jnp.concatenate([B, A], axis=-1)
    for condition in ({"y": A, "x": B}, {"x": B, "y": A}):
        np.testing.assert_array_equal(class_tokens(condition), expected)


def test_conditions_of_different_classes_are_refused():
    with pytest.raises(ValueError, match=r"equal \(tasks, classes\), not a .*3, 4.*, b .*2, 2"):
        class_tokens({"a": A, "b": B[:, :2]})
    with pytest.raises(ValueError, match="needs entries"):
        class_tokens({})


def test_embedding_is_two_linear_layers_over_all_classes():
    module = TaskEmbedding(5)
    variables = module.init(jax.random.key(0), A)
    first, second = variables["params"]["Dense_0"], variables["params"]["Dense_1"]
    hidden = A.reshape(2, 12) @ first["kernel"] + first["bias"]
    hidden = hidden / (1 + jnp.exp(-hidden))
    expected = hidden @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(module.apply(variables, A), expected, rtol=1e-4, atol=1e-5)
    # The order of the classes is part of the task: slots have names.
    assert jnp.abs(module.apply(variables, A[:, ::-1]) - expected).max() > 1e-3
