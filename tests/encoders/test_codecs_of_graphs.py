"""Codecs whose encoder reads graphs: what they are made of, and who is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.codecs import make_codec
from flown_jax.errors import UserError
from flown_jax.few_shot.space import head_spec
from flown_jax.models.heads import to_vector
from flown_jax.weights.spec import Entry, WeightSpec
from tests.encoders import stand_in
from tests.encoders.test_codecs import LATENTS, SIZES, X1
from tests.layers.helpers import quick_jit

pytestmark = pytest.mark.fast

SPEC = head_spec(5, 6)
DECODERS = {
    "mlp": {"decoder"},
    "autoencoder_kl": {"decoder", "post_quant_conv", "fc_out"},
}


@pytest.fixture(autouse=True)
def of_graphs(monkeypatch):
    stand_in.put(monkeypatch)


def made(form, shape=(35,), **more):
    options = {"encoder": "graph", "graph": stand_in.SIZES, "spec": SPEC, **more}
    return make_codec(form, shape, **options, **SIZES[form])


@pytest.mark.parametrize("form", DECODERS)
def test_the_form_is_the_decoder_and_has_no_encoder_of_its_own(form):
    codec = made(form)
    hash(codec)
    assert codec.spec == SPEC and dict(codec.graph) == stand_in.SIZES
    x1 = X1.reshape(2, 35)
    shapes = jax.eval_shape(codec.init, jax.random.key(0), x1)
    assert set(shapes["params"]["decoder"]) == DECODERS[form]
    z = jax.eval_shape(lambda x: codec.init_with_output(jax.random.key(0), x, method="encode"), x1)
    assert z[0].mode().shape == (2, *LATENTS[form])


def test_the_decoder_decodes_as_the_form_itself():
    codec, x1 = made("mlp"), X1.reshape(2, 35)
    variables = quick_jit(codec.init)(jax.random.key(0), x1)
    z = codec.apply(variables, x1, method="encode").mode()
    own = make_codec("mlp", (35,), **SIZES["mlp"])
    decode = {"params": variables["params"]["decoder"]}
    np.testing.assert_array_equal(
        codec.apply(variables, z, method="decode"), own.apply(decode, z, method="decode")
    )


def test_heads_are_fitted_as_the_vectors_that_they_are():
    flat, heads = made("mlp"), made("mlp", (5, 7))
    own = quick_jit(flat.init)(jax.random.key(0), jnp.zeros((1, 35)))
    nested = {name: {"autoencoder": part} for name, part in own.items()}
    expected = flat.fit(own, to_vector(X1), None)
    assert np.abs(expected["constants"]["mean"]).min() > 0
    found = heads.fit(nested, X1, None)
    assert set(found) == {"params", "constants"}
    jax.tree.map(
        np.testing.assert_array_equal,
        found,
        {name: {"autoencoder": part} for name, part in expected.items()},
    )
    z = flat.apply(expected, to_vector(X1), method="encode").mode()
    np.testing.assert_array_equal(heads.apply(found, X1, method="encode").mode(), z)


def test_heads_of_other_codecs_have_nothing_to_fit():
    codec = make_codec("mlp", (5, 7), **SIZES["mlp"])
    variables = {"params": {"autoencoder": 1}}
    assert codec.fit(variables, X1, None) == variables


def test_a_code_a_class_is_no_code_of_a_graph():
    with pytest.raises(UserError, match="with codec.encoder 'graph' it must be 'mlp' or"):
        made("token", (5, 7))


@pytest.mark.parametrize("name", ["backbone", "form", "softmax_scale", "flattening"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UserError, match=rf"^codec.graph.{name} is 'odd'; it must be one of \w+, "):
        made("mlp", graph={**stand_in.SIZES, name: "odd"})


def test_an_unknown_encoder_is_refused():
    with pytest.raises(UserError, match="codec.encoder is 'cnn'; it must be one of vae, graph"):
        made("mlp", encoder="cnn")


def test_graphs_need_the_whole_network_and_its_spec():
    with pytest.raises(UserError, match="needs the spec of the vectors"):
        made("mlp", spec=None)
    part = WeightSpec((Entry("bn.weight", "params/bn/scale", (35,)),), partial=True)
    with pytest.raises(UserError, match="^vectors of bn.weight to bn.weight are a part of a net"):
        made("mlp", spec=part)
