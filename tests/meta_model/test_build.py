"""A meta-model is its description and its arrays, there and back."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.few_shot.sampling import draw_heads
from flown_jax.image_encoders import from_function
from flown_jax.meta_model.build import build, codec_of, describe
from tests.encoders import stand_in
from tests.few_shot import small
from tests.layers.helpers import quick_jit

SUPPORT = jnp.asarray(small.table().support())
# What the parts do not tell.
TOLD = ("codec", "velocity", "latent_shape", "image_shape", "source", "sampling", "trained_on")
draw = quick_jit(draw_heads, static_argnames="samples")


def described(parts):
    """Description and arrays of built parts."""
    more = {name: parts.description[name] for name in TOLD}
    return describe(
        "heads",
        parts.encoder,
        parts.transform,
        parts.conditioner,
        parts.latents,
        parts.velocity_params,
        **more,
    )


@pytest.mark.parametrize(
    ("form", "entries", "sharpened"),
    [("token", ("caml", "features"), False), ("mlp", ("features", "shots"), True)],
)
def test_describing_and_building_are_inverse(form, entries, sharpened):
    about = small.description(form, entries)
    arrays = small.arrays(about)
    if sharpened:
        arrays["target"]["sharpness"] = np.asarray([1.4, 1.2], np.float32)
    parts = build(about, arrays)
    assert parts.description == about and not parts.any_way
    description, found = described(parts)
    assert json.loads(json.dumps(description)) == about
    assert jax.tree.structure(found) == jax.tree.structure(arrays)
    jax.tree.map(np.testing.assert_array_equal, found, arrays)
    again = build(description, found)
    assert jax.tree.structure(again) == jax.tree.structure(parts)
    one, nfe = draw(parts, jax.random.key(0), SUPPORT, samples=2)
    two, _ = draw(again, jax.random.key(0), SUPPORT, samples=2)
    assert one.shape == (2, len(SUPPORT), small.WAY, small.WIDTH + 1) and float(nfe) == 3
    np.testing.assert_array_equal(one, two)


def test_a_codec_without_a_named_encoder_has_its_own():
    target = small.parts("mlp").target
    plain = {"form": "mlp", "sizes": {"latent_shape": [4, 4, 2], "hidden_dim": 8}}
    named = {**plain, "encoder": "vae", "graph": None}
    assert codec_of(plain, target) == codec_of(named, target)
    assert codec_of({**plain, "chunk": 0}, target) == codec_of(plain, target)
    assert codec_of({**plain, "chunk": 9}, target).autoencoder.chunk == 9
    about = {**small.description("mlp"), "codec": named}
    assert build(about, small.arrays(about)).description == about


def test_a_codec_of_graphs_reads_what_the_target_is(monkeypatch):
    stand_in.put(monkeypatch)
    sizes = {"latent_shape": [4, 4, 2], "hidden_dim": 8}
    graph = {**stand_in.SIZES, "head_dims": [8, 8]}
    about = {"form": "mlp", "sizes": sizes, "encoder": "graph", "graph": graph}
    target = small.parts("mlp").target
    codec = codec_of(about, target)
    assert codec.autoencoder.spec == target.spec
    assert codec.autoencoder.graph["head_dims"] == (8, 8) and hash(codec) is not None


def half(images):
    """An image encoder of one's own."""
    return images[:, 0, : small.WIDTH, 0]


def test_an_encoder_that_is_a_function_leaves_no_arrays():
    known = small.parts()
    encoder = from_function(f"{__name__}:half", side=0, mirror=False)
    description, arrays = described(known.replace(encoder=encoder))
    assert "encoder" not in arrays and description["encoder"] == encoder.describe()
    assert build(description, arrays).encoder.fingerprint() == encoder.fingerprint()


def test_what_is_not_told_is_as_it_was_chosen_in_training():
    parts, key = small.parts(), jax.random.key(3)
    chosen = dict(parts.description["sampling"])
    assert chosen.pop("samples") == 4
    default, _ = draw_heads(parts, key, SUPPORT, samples=1)
    told, _ = draw_heads(parts, key, SUPPORT, samples=1, **chosen)
    np.testing.assert_array_equal(told, default)
    for other in ({"steps": 1}, {"temperature": 0.1}, {"solver": "heun"}):
        changed, _ = draw_heads(parts, key, SUPPORT, samples=1, **{**chosen, **other})
        assert not np.allclose(changed, default, atol=1e-4)


def test_a_kind_that_nobody_registered_is_refused():
    about = small.description()
    arrays = small.arrays(about)
    about["target"] = {**about["target"], "kind": "tails"}
    with pytest.raises(UserError, match="kind of target is 'tails'; known here are .*heads"):
        build(about, arrays)
