"""The transformer block: a function of a set, against torch's, residual, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.layers.transformer import TransformerBlock

TOKENS = jax.random.normal(jax.random.key(0), (2, 5, 8))
BLOCK = TransformerBlock(num_heads=2, mlp_dim=12)


@pytest.fixture(scope="module")
def variables():
    return BLOCK.init(jax.random.key(1), TOKENS)


def test_permuting_the_tokens_permutes_the_result(variables):
    order = jnp.asarray([4, 2, 0, 1, 3])
    out = BLOCK.apply(variables, TOKENS)
    permuted = BLOCK.apply(variables, TOKENS[:, order])
    np.testing.assert_allclose(permuted, out[:, order], atol=1e-5)
    assert jnp.abs(out - TOKENS).max() > 1e-2


def test_tokens_attend_within_their_own_set(variables):
    out = BLOCK.apply(variables, TOKENS)
    np.testing.assert_allclose(BLOCK.apply(variables, TOKENS[0]), out[0], atol=1e-5)
    # One feature: the LayerNorm takes away what all features of a token have in common.
    changed = BLOCK.apply(variables, TOKENS.at[0, 0, 0].add(1.0))
    np.testing.assert_allclose(changed[1], out[1], atol=1e-6)
    assert jnp.abs(changed[0, 1:] - out[0, 1:]).max() > 1e-5


def test_equals_torchs_pre_norm_layer(variables):
    torch = pytest.importorskip("torch")
    twin = torch.nn.TransformerEncoderLayer(
        8,
        2,
        12,
        dropout=0.0,
        activation=torch.nn.GELU("tanh"),
        batch_first=True,
        norm_first=True,
        layer_norm_eps=1e-6,
    )
    params = variables["params"]
    names = {
        "self_attn.in_proj_": "qkv",
        "self_attn.out_proj.": "out",
        "linear1.": "mlp_in",
        "linear2.": "mlp_out",
        "norm1.": "norm_1",
        "norm2.": "norm_2",
    }
    state = {}
    for prefix, name in names.items():
        entry = params[name]
        weight = entry["scale"] if "scale" in entry else entry["kernel"].T
        state[f"{prefix}weight"] = torch.tensor(np.array(weight))
        state[f"{prefix}bias"] = torch.tensor(np.array(entry["bias"]))
    twin.load_state_dict(state)
    with torch.no_grad():
        expected = twin(torch.tensor(np.array(TOKENS))).numpy()
    np.testing.assert_allclose(BLOCK.apply(variables, TOKENS), expected, atol=2e-5)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="token width 8 is not divisible by 3 heads"):
        TransformerBlock(num_heads=3, mlp_dim=4).init(jax.random.key(0), TOKENS)
