"""The weight autoencoder of a config: what counts of it, its description, what does not fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.fields import fitting
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.weights.spec import WeightSpec


def counted(codec: ConfigDict) -> ConfigDict:
    """A config's codec as the input of a stage.

    The encoder `vae` has no fields of graphs, and whole vectors have no chunks.
    """
    unused = set() if codec.encoder != "vae" else {"encoder", "graph"}
    if not codec.get("chunk"):
        unused.add("chunk")
    if not unused & set(codec):
        return codec
    return ConfigDict({k: v for k, v in codec.items() if k not in unused})


def described(codec: ConfigDict) -> dict[str, Any]:
    """What `build.codec_of` takes, JSON values, of a config's codec or what counts of it."""
    found = {
        "form": codec.form,
        "sizes": codec.sizes.to_dict(),
        "encoder": codec.get("encoder", "vae"),
        "graph": codec.graph.to_dict() if "encoder" in codec and codec.encoder != "vae" else None,
    }
    return {**found, "chunk": codec.chunk} if codec.get("chunk") else found


def checked_latent(codec: ConfigDict, shape: tuple[int, ...], spec: WeightSpec) -> tuple[int, ...]:
    """The shape of one latent; nothing is computed.

    Args:
      codec: of a config. shape: of one target. spec: of targets of this kind, which graphs need.
    Raises:
      UserError: sizes that do not fit, or of an encoder of graphs what `make_codec` refuses.
    """
    sizes, x = tuples(codec.sizes.to_dict()), jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def latent(**more: Any) -> tuple[int, ...]:
        module = make_codec(codec.form, shape, chunk=codec.get("chunk", 0), **more, **sizes)

        def mode(x: jax.Array) -> jax.Array:
            return module.init_with_output(jax.random.key(0), x, method="encode")[0].mode()

        return jax.eval_shape(mode, x).shape[1:]

    with fitting(f"codec.sizes, with codec.form {codec.form!r},"):
        found = latent()
    if codec.encoder == "vae":
        return found
    with fitting("codec.graph"):
        return latent(encoder=codec.encoder, graph=codec.graph.to_dict(), spec=spec)
