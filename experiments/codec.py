"""The weight autoencoder of a config: what counts of it, its description, what does not fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.fields import fitting
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.errors import UserError
from flown_jax.weights.spec import WeightSpec

# Fields that came later than results that stand without them.
_OFF = {"diversity_form": "one_sided", "ball_weight": 0.0, "codes": "members"}


def counted(codec: ConfigDict) -> ConfigDict:
    """A config's codec as the input of a stage.

    The encoder `vae` has no fields of graphs, whole vectors have no chunks, and what is off does
    not count.
    """
    unused = set() if codec.encoder != "vae" else {"encoder", "graph"}
    if not codec.get("chunk"):
        unused.add("chunk")
    unused |= {name for name, off in _OFF.items() if codec.get(name) == off}
    if not unused & set(codec):
        return codec
    return ConfigDict({k: v for k, v in codec.items() if k not in unused})


def same_codec(codec: ConfigDict, other: ConfigDict) -> bool:
    """Whether two configs' codecs are one, in all that counts."""
    return counted(codec).to_dict() == counted(other).to_dict()


def check_codes(config: ConfigDict) -> None:
    """Refuse codes from N(0, I) where the rest of a design needs networks.

    Args:
      config: of a design, with `codec` and `flow`.
    Raises:
      UserError: names the field.
    """
    codec = config.codec
    if codec.codes != "normal":
        return
    if codec.weights_weight or codec.anchor:
        raise UserError(
            "codec.codes is 'normal', where no network is read: codec.weights_weight and "
            "codec.anchor must be 0."
        )
    if config.flow.target != "members":
        raise UserError(
            f"flow.target is {config.flow.target!r}; with codec.codes 'normal' it must be "
            "'members', the draws themselves."
        )


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
