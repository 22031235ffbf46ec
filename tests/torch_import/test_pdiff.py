"""State dicts of p-diff's networks: names, shapes, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import import convert, pdiff_autoencoder, pdiff_denoiser
from tests.parity.fixtures import load

CASES = {
    "pdiff_autoencoder": ("pdiff_ae_small", pdiff_autoencoder, "decoder.decoder.1.2.weight"),
    "pdiff_denoiser": ("pdiff_unet", pdiff_denoiser, "enc2.5.weight"),
}


@pytest.fixture(params=CASES)
def case(request):
    name, module, entry = CASES[request.param]
    fixture = load(name, "own")
    return request.param, module, entry, fixture.params, fixture.config


def test_every_entry_has_its_place(case):
    kind, module, _, state, config = case
    found = convert(kind, {f"module.{name}": value for name, value in state.items()}, config)
    network, size = module.module_from_config(config), config["in_dim"]
    given = (jnp.zeros((1, size)),)
    if kind == "pdiff_denoiser":
        given = (jnp.zeros((1, size, 1)), jnp.zeros(1, int))
    shapes = jax.eval_shape(network.init, jax.random.key(0), *given)
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == sum(v.size for v in state.values())


def test_other_entries_are_refused_by_name(case):
    kind, _, entry, state, config = case
    for changed in (
        {name: value for name, value in state.items() if name != entry},
        {**state, entry: state[entry][:1]},
    ):
        with pytest.raises(UserError, match=entry):
            convert(kind, changed, config)
    with pytest.raises(UserError, match="surplus"):
        convert(kind, {**state, "surplus": np.zeros(1)}, config)


def test_a_size_that_is_missing_is_named(case):
    kind, _, _, state, config = case
    with pytest.raises(UserError, match="in_dim"):
        convert(kind, state, {name: value for name, value in config.items() if name != "in_dim"})


def test_published_sizes_are_the_denoiser_s_defaults():
    module = pdiff_denoiser.module_from_config({"in_dim": 12}, first_time=True)
    assert (module.channels, module.timesteps) == ((64, 128, 256, 512), 1000)
    assert module.first_time
