"""What can be wrong with a few-shot config, found before anything is trained."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.fsl import get_config
from experiments.codec import checked_latent
from experiments.command import fields_of
from experiments.fewshot.designs import schedule
from experiments.fields import check_at_most, check_fields, check_recipes, fitting
from experiments.settings import check_tasks, settings
from flown_jax.data.datasets import FEW_SHOT, few_shot
from flown_jax.encoders.codecs import tuples
from flown_jax.errors import UserError
from flown_jax.few_shot.space import head_spec
from flown_jax.flow.couplings import get_coupling, needs_groups
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from flown_jax.training.parallel import shares
from flown_jax.velocity.make import make_velocity
from flown_jax.velocity.token_transformer import TokenTransformer

# A width for the shapes of codecs; the features' own is known when images were encoded.
_WIDTH = 64


def check(config: ConfigDict) -> None:
    """Refuse networks and solvers that do not fit before anything is trained; nothing is computed.

    Raises:
      ValueError: in one sentence, from the part that does not fit.
    """
    name = dict(fields_of(config)).get("data.name", "glyphs")
    if name not in FEW_SHOT:
        few_shot(name)  # refuses it
    like = get_config("default" if name == "glyphs" else "mini_imagenet")
    check_fields(config, like)
    own = ConfigDict({part: like[part] for part in ("codec", "velocity", "condition", "flow")})
    for name, design in config.beside.items():
        check_fields(design, own, f"beside.{name}.")
    check_tasks(config)
    check_recipes(config)
    found, tasks = settings(config.tasks.settings), config.tasks
    file = config.encoder.weights
    if config.encoder.kind not in ("trained", "function") and not os.path.isfile(file):
        raise UserError(
            f"encoder.weights is {file!r}; an encoder {config.encoder.kind!r} needs a file of "
            "weights."
        )
    check_at_most(config, "sampling.top", "sampling.samples")
    check_at_most(config, "ddpm.steps", "ddpm.timesteps")
    try:
        schedule(config.ddpm.timesteps)
    except ValueError as error:
        raise UserError(f"ddpm.timesteps is {config.ddpm.timesteps}: {error}") from error
    own_way = config.codec.form != "token" or "caml" in config.condition.entries
    if own_way and (other := [s.name for s in found if s.way != tasks.way]):
        raise UserError(
            f"tasks.settings has {other[0]!r}, and this meta-model makes heads of "
            f"{tasks.way} classes alone: other ways need codec.form 'token' and a condition "
            "without CAML."
        )
    designs = {"": config} | {f"beside.{name}.": own for name, own in config.beside.items()}
    for where, design in designs.items():
        _check_design(design, tasks.way)
        # Of heads; an autoencoder that mixes networks, as those of zoos do, shares no batch.
        shares(design.codec.recipe.batch, what=f"{where}codec.recipe.batch")
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros((1, 2)))


def _check_design(design: ConfigDict, way: int) -> None:
    shape = checked_latent(design.codec, (way, _WIDTH + 1), head_spec(way, _WIDTH))
    sizes = tuples(design.velocity.sizes.to_dict())
    with fitting(f"velocity.sizes, with velocity.kind {design.velocity.kind!r},"):
        velocity = make_velocity(design.velocity.kind, shape, **sizes)
        if isinstance(velocity, TokenTransformer) and velocity.width % velocity.num_heads:
            raise ValueError(f"{velocity.num_heads} heads do not divide a width {velocity.width}.")
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
