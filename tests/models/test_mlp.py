"""The MLP: its function in NumPy, order of flattening, torch's state dict, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models import MLP
from flown_jax.torch_import import convert
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import quick_jit, random_variables

MODULE = MLP((5, 4), num_classes=3, activation="tanh")
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 2)), jnp.float32)


def test_its_function_from_a_state_dict():
    variables = random_variables(MODULE, IMAGES)
    spec = WeightSpec.from_module(MODULE, variables)
    w = np.asarray(spec.flatten(variables))
    state = {e.name: w[spec.slices[e.name]].reshape(e.shape) for e in spec.entries}
    assert list(state)[::2] == [f"module_list.{i}.weight" for i in (0, 2, 4)]
    x = np.transpose(IMAGES, (0, 3, 1, 2)).reshape(2, -1)
    stages = []
    for i in (0, 2, 4):
        x = x @ state[f"module_list.{i}.weight"].T + state[f"module_list.{i}.bias"]
        if i < 4:
            stages.append(x := np.tanh(x))
    config = {"hidden": [5, 4], "num_classes": 3, "activation": "tanh"}
    read = convert("mlp", {f"module.{name}": value for name, value in state.items()}, config)
    logits, found = quick_jit(MODULE.apply, static_argnums=(2, 3))(read, IMAGES, False, True)
    np.testing.assert_allclose(logits, x, atol=1e-5)
    assert list(found) == ["act_0", "act_1"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), list(found.values()), stages
    )


def test_refusals():
    variables = random_variables(MODULE, IMAGES)
    with pytest.raises(UserError, match=r"images of \(2, 2, 2\) have 8 values, .* have 12"):
        MODULE.apply(variables, IMAGES[:, :2])
    with pytest.raises(UserError, match=r"must be \(B, H, W, C\)"):
        MODULE.apply(variables, IMAGES[0])
    with pytest.raises(UserError, match="activation 'sine' is unknown"):
        MLP(activation="sine")
    with pytest.raises(UserError, match=r"module_list.0.bias"):
        convert("mlp", {"module_list.0.weight": np.zeros((5, 12))}, {"hidden": [5]})
