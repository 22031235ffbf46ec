"""What can be wrong with a retrieval config, found before anything is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.retrieval.designs import changed
from flown_jax.data import image_sets
from flown_jax.encoders.codecs import make_codec, tuples
from flown_jax.errors import UserError
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from flown_jax.networks.batches import TARGETS
from flown_jax.velocity.make import make_velocity

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
    if flow.target not in TARGETS:
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
    module = make_codec(codec.form, (_WEIGHTS,), **tuples(codec.sizes.to_dict()))
    x = jax.ShapeDtypeStruct((1, _WEIGHTS), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    latent = jax.eval_shape(
        lambda v, x: module.apply(v, x, method="encode").mode(), variables, x
    ).shape[1:]
    make_velocity(config.velocity.kind, latent, **tuples(config.velocity.sizes.to_dict()))


def _names(config: ConfigDict) -> str:
    return ", ".join(config.zoos)


def check_initialise(config: ConfigDict) -> None:
    """Refuse what cannot be trained, before anything is.

    Args:
      config: of the run.
    Raises:
      UserError: a wrong field of `initialise`; the sentence names it.
    """
    part = config.initialise
    epochs = list(part.epochs)
    if not epochs or not all(map(_whole, epochs)) or epochs != sorted(set(epochs)):
        raise UserError(
            f"initialise.epochs is {tuple(epochs)}; it is whole numbers from 0 in rising order."
        )
    if not part.rates or not all(0 < rate < float("inf") for rate in part.rates):
        raise UserError(
            f"initialise.rates is {tuple(part.rates)}; it is factors above 0 on a zoo's learning "
            "rate."
        )
    if len(part.rates) > 1 and not (_whole(part.tuned_at) and 0 < part.tuned_at <= epochs[-1]):
        raise UserError(
            f"initialise.tuned_at is {part.tuned_at}; it is an epoch from 1 to the last of "
            f"initialise.epochs, {epochs[-1]}."
        )
    draws = max(config.evaluation.draws, config.sampling.samples)
    if not 1 <= part.runs < draws:
        raise UserError(
            f"initialise.runs is {part.runs}; it is from 1 to {draws - 1}, one less than the "
            "support draws of evaluation.draws or sampling.samples."
        )
    if part.images < 0:
        raise UserError(f"initialise.images is {part.images}; it is from 0, which means all.")
    for name, like in part.unseen.items():
        if name in config.zoos:
            raise UserError(f"initialise.unseen names {name}, which has a zoo: it is seen.")
        if like not in config.zoos:
            raise UserError(
                f"initialise.unseen.{name} is {like!r}; it is the data set whose network {name} "
                f"takes, one of {', '.join(config.zoos)}."
            )
        known = image_sets.CATALOGUE
        if not image_sets.at_hand(name, config.data.dir):
            image_sets.facts(name)  # refuses a name that is nobody's
        if name not in known or like not in known:
            continue  # a set of the user's own, whose classes its file tells
        classes, wanted = known[name].classes, known[like].classes
        if classes != wanted:
            raise UserError(
                f"initialise.unseen.{name} is {like!r}, whose networks tell {wanted} classes "
                f"apart; {name} has {classes}."
            )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
