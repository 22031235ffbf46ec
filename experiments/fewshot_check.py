"""What can be wrong with a few-shot config, found before anything is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flown_jax.errors import UserError
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.parts import build_codec, tuples
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source


def check(config: ConfigDict) -> None:
    """Refuse networks and solvers that do not fit before anything is trained; nothing is computed.

    Raises:
      ValueError: in one sentence, from the part that does not fit.
    """
    if config.targets.kind not in ("adamw", "lda"):
        raise UserError(f"targets.kind is {config.targets.kind!r}; it must be 'adamw' or 'lda'.")
    way, width = config.tasks.way, config.backbone.channels[-1]
    codec = build_codec({"way": way, "codec": config.codec.to_dict()}, width)

    def latent(heads: jax.Array) -> jax.Array:
        posterior, _ = codec.init_with_output(jax.random.key(0), heads, method="encode")
        return posterior.mode()

    heads = jax.ShapeDtypeStruct((1, way, width + 1), jnp.float32)
    shape = jax.eval_shape(latent, heads).shape
    make_velocity(config.velocity.kind, shape[1:], **tuples(config.velocity.sizes.to_dict()))
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros(shape))
    get_source(config.flow.source)
    get_coupling(config.flow.coupling)
