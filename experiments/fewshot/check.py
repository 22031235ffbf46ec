"""What can be wrong with a few-shot config, found before anything is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.settings import settings
from flown_jax import image_encoders
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.errors import UserError
from flown_jax.flow.couplings import get_coupling, needs_groups
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from flown_jax.velocity.make import make_velocity

# A width for the shapes of codecs; the features' own is known when images were encoded.
_WIDTH = 64


def check(config: ConfigDict) -> None:
    """Refuse networks and solvers that do not fit before anything is trained; nothing is computed.

    Raises:
      ValueError: in one sentence, from the part that does not fit.
    """
    found, tasks = settings(config.tasks.settings), config.tasks
    kinds = ("trained", *image_encoders.KINDS)
    if config.encoder.kind not in kinds:
        raise UserError(
            f"encoder.kind is {config.encoder.kind!r}; it must be one of {', '.join(kinds)}."
        )
    if config.targets.kind not in ("adamw", "lda"):
        raise UserError(f"targets.kind is {config.targets.kind!r}; it must be 'adamw' or 'lda'.")
    shots = tuple(tasks.shots)
    if not shots or list(shots) != sorted(set(shots)) or shots[0] < 1:
        raise UserError(f"tasks.shots is {shots}; it must be ascending numbers from 1.")
    if tasks.way > config.caml.num_classes:
        raise UserError(
            f"tasks.way is {tasks.way}, and CAML has names for {config.caml.num_classes} classes: "
            "set caml.num_classes."
        )
    own_way = config.codec.form != "token" or "caml" in config.condition.entries
    if own_way and (other := [s.name for s in found if s.way != tasks.way]):
        raise UserError(
            f"tasks.settings has {other[0]!r}, and this meta-model makes heads of "
            f"{tasks.way} classes alone: other ways need codec.form 'token' and a condition "
            "without CAML."
        )
    for design in (config, *config.beside.values()):
        _check_design(design, tasks.way)
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros((1, 2)))


def _check_design(design: ConfigDict, way: int) -> None:
    sizes = tuples(design.codec.sizes.to_dict())
    codec = make_codec(design.codec.form, (way, _WIDTH + 1), **sizes)

    def latent(heads: jax.Array) -> jax.Array:
        posterior, _ = codec.init_with_output(jax.random.key(0), heads, method="encode")
        return posterior.mode()

    heads = jax.ShapeDtypeStruct((1, way, _WIDTH + 1), jnp.float32)
    shape = jax.eval_shape(latent, heads).shape
    make_velocity(design.velocity.kind, shape[1:], **tuples(design.velocity.sizes.to_dict()))
    get_source(design.flow.source)
    coupling = design.flow.coupling
    # Entropic transport has a strength, which nobody needs to give to be refused.
    reg = 1.0 if coupling == "entropic_ot" else None
    if needs_groups(get_coupling(coupling, reg=reg)):
        raise UserError(
            f"flow.coupling is {coupling!r}: transport over tasks of different "
            "conditions ties the source to the condition and biases the flow; it must be "
            "'independent'."
        )
