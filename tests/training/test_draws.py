"""Parts of a batch draw what the whole batch draws there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.training.draws import part_key

pytestmark = pytest.mark.fast

PARTS, SIZE = 4, 3
DRAWS = {
    "normal": lambda key, b: jax.random.normal(key, (b, 5)),
    "uniform": lambda key, b: jax.random.uniform(key, (b,)),
    "integers": lambda key, b: jax.random.randint(key, (b, 2), 0, 100),
    "truth": lambda key, b: jax.random.bernoulli(key, 0.3, (b, 1, 1)),
    "half": lambda key, b: jax.random.normal(key, (b, 2), jnp.float16),
    "split": lambda key, b: jax.random.normal(jax.random.split(key, 3)[1], (b,)),
    "folded": lambda key, b: jax.random.normal(jax.random.fold_in(key, 7), (b,)),
    "classes": lambda key, b: jax.random.normal(key, (2 * b, 3)).reshape(b, 2, 3),
    "members": lambda key, b: jax.vmap(lambda k: jax.random.normal(k, (b, 2)))(
        jax.random.split(key, 5)
    ).swapaxes(0, 1),
    "dropout": lambda key, b: nn.Dropout(0.5, deterministic=False).apply(
        {}, jnp.ones((b, 4)), rngs={"dropout": key}
    ),
    "scanned": lambda key, b: jax.lax.scan(
        lambda c, k: (c + jax.random.normal(k, (b,)), None), jnp.zeros(b), jax.random.split(key, 2)
    )[0],
}


# JAX's rbg draws otherwise under vmap, on one device too.
CASES = [(name, "threefry2x32") for name in DRAWS]
CASES += [(name, "rbg") for name in DRAWS if name != "members"]


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_rows_of_a_part_are_those_of_the_whole(name, implementation):
    draw, key = DRAWS[name], jax.random.key(3, impl=implementation)
    whole = jax.jit(draw, static_argnums=1)(key, PARTS * SIZE)

    @jax.jit
    def part(index):
        return draw(part_key(key, index, PARTS, SIZE), SIZE)

    parts = [part(index) for index in range(PARTS)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(np.asarray(whole, np.float64))) > 1


def test_what_is_of_no_example_is_the_same_everywhere():
    def draw(key):
        return jax.random.normal(key, ()), jax.random.normal(key, (SIZE + 1,))

    key = jax.random.key(5)
    for index in range(PARTS):
        for own, one in zip(draw(part_key(key, index, PARTS, SIZE)), draw(key), strict=True):
            np.testing.assert_array_equal(own, one)
