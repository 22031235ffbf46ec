"""What can be wrong with a retrieval config, found before anything is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.retrieval_generators import build_codec, changed
from experiments.retrieval_initialise import check_initialise
from flown_jax.errors import UserError
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.parts import tuples
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source

_ENTRIES = ("features", "shots", "caml")
_WEIGHTS = 2864  # of CNN-small; the zoos' own is known when they were read


def check(config: ConfigDict) -> None:
    """Refuse settings that do not fit before anything is trained; nothing is computed.

    Raises:
      ValueError: in one sentence, from the part that does not fit.
    """
    if len(config.zoos) < 1:
        raise UserError("zoos names no data set; give one at least.")
    leader = config.alignment.leader
    if leader and leader not in config.zoos:
        raise UserError(f"alignment.leader is {leader!r}; it must be one of {_names(config)}.")
    unknown = [e for e in config.condition.entries if e not in _ENTRIES]
    if unknown or not config.condition.entries:
        raise UserError(
            f"condition.entries is {tuple(config.condition.entries)}; it takes {_ENTRIES}."
        )
    if config.sampling.samples < 2:
        raise UserError(f"sampling.samples is {config.sampling.samples}; it must be 2 or more.")
    check_initialise(config)
    for changes in ({}, *(part.to_dict() for part in config.beside.values())):
        _check_design(changed(config, changes))
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros((1, 2)))


def _check_design(config: ConfigDict) -> None:
    codec, flow = config.codec, config.flow
    if flow.target not in ("mixes", "members"):
        raise UserError(f"flow.target is {flow.target!r}; it must be 'mixes' or 'members'.")
    if not 1 <= codec.members <= codec.networks:
        raise UserError(
            f"codec.members is {codec.members}; a mix has from 1 to codec.networks = "
            f"{codec.networks} of them."
        )
    if not (codec.weights_weight or codec.task_weight):
        raise UserError("codec has neither weights_weight nor task_weight: nothing is learned.")
    for name in ("sigma_lat", "sigma_in", "task_weight", "weights_weight", "task_balance"):
        if codec[name] < 0:
            raise UserError(f"codec.{name} is {codec[name]}; it must not be negative.")
    for part in ("codec", "flow"):
        if config[part].concentration <= 0:
            raise UserError(
                f"{part}.concentration is {config[part].concentration}; it must be above 0."
            )
    get_coupling(flow.coupling)
    get_source(flow.source)
    module = build_codec(config, _WEIGHTS)
    x = jax.ShapeDtypeStruct((1, _WEIGHTS), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    latent = jax.eval_shape(
        lambda v, x: module.apply(v, x, method="encode").mode(), variables, x
    ).shape[1:]
    make_velocity(config.velocity.kind, latent, **tuples(config.velocity.sizes.to_dict()))


def _names(config: ConfigDict) -> str:
    return ", ".join(config.zoos)
