"""What can be wrong with a retrieval config, found before anything is trained."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs.retrieval import get_config
from configs.zoo import variants as zoo_variants
from experiments.codec import check_codes, checked_latent
from experiments.designs import changed
from experiments.fields import check_at_most, check_fields, check_recipes, fitting
from experiments.settings import check_tasks
from flown_jax.data import image_sets
from flown_jax.encoders.codecs import tuples
from flown_jax.errors import UserError
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sampling import sample
from flown_jax.flow.sources import get_source
from flown_jax.models.cnn import cnn_small
from flown_jax.velocity.make import make_velocity
from flown_jax.weights.spec import WeightSpec


@functools.cache
def _spec() -> WeightSpec:
    """Of CNN-small; the zoos' own is known when they were read."""
    module, images = cnn_small(), jnp.zeros((1, 28, 28, 3))
    return WeightSpec.from_module(module, jax.eval_shape(module.init, jax.random.key(0), images))


def check(config: ConfigDict) -> None:
    """Refuse settings that do not fit before anything is trained; nothing is computed.

    Raises:
      ValueError: in one sentence, from the part that does not fit.
    """
    check_fields(config, get_config())
    if len(config.zoos) < 1:
        raise UserError("zoos names no data set; give one at least.")
    leader = config.alignment.leader
    if leader and leader not in config.zoos:
        raise UserError(f"alignment.leader is {leader!r}; it must be one of {_names(config)}.")
    if config.sampling.samples < 2:
        raise UserError(f"sampling.samples is {config.sampling.samples}; it must be 2 or more.")
    check_tasks(config, "features")
    check_at_most(config, "condition.shot", "condition.pool")
    check_at_most(config, "ddpm.steps", "ddpm.timesteps")
    check_at_most(config, "ddpm.beta_start", "ddpm.beta_end")
    check_trained(config)
    if not image_sets.at_hand(config.prior.dataset, config.data.dir):
        image_sets.facts(config.prior.dataset)  # refuses a name that is nobody's
    check_initialise(config)
    for changes in ({}, *(part.to_dict() for part in config.beside.values())):
        design = changed(config, changes)
        check_recipes(design)
        _check_design(design)
    sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
    jax.eval_shape(lambda x: sample(lambda x, t, y: -x, x, **sampling).x1, jnp.zeros((1, 2)))


def _check_design(config: ConfigDict) -> None:
    codec, flow = config.codec, config.flow
    if not 1 <= codec.members <= codec.networks:
        raise UserError(
            f"codec.members is {codec.members}; a mix has from 1 to codec.networks = "
            f"{codec.networks} of them."
        )
    if not (codec.weights_weight or codec.task_weight):
        raise UserError("codec has neither weights_weight nor task_weight: nothing is learned.")
    check_codes(config)
    get_coupling(flow.coupling)
    get_source(flow.source)
    spec = _spec()
    latent = checked_latent(codec, (spec.size,), spec)
    sizes = tuples(config.velocity.sizes.to_dict())
    with fitting(f"velocity.sizes, with velocity.kind {config.velocity.kind!r},"):
        make_velocity(config.velocity.kind, latent, **sizes)


def _names(config: ConfigDict) -> str:
    return ", ".join(config.zoos)


def check_trained(config: ConfigDict) -> None:
    """Refuse zoos that cannot be trained here, or not be learned from.

    Raises:
      UserError: a wrong field of `trained` or `zoos`; the sentence names it.
    """
    trained, here = config.trained, [name for name, folder in config.zoos.items() if not folder]
    for name in here:
        if name not in zoo_variants():
            raise UserError(
                f"zoos.{name} is empty, and configs/zoo.py has no variant {name!r}: give a folder."
            )
    if wrong := [e for e in trained.save_epochs if e > trained.epochs]:
        raise UserError(
            f"trained.save_epochs has {wrong[0]}; it must be at most trained.epochs, which is "
            f"{trained.epochs}."
        )
    if here and config.epochs and not set(config.epochs) & set(trained.save_epochs):
        raise UserError(
            f"epochs is {tuple(config.epochs)}; of a zoo that is trained here it must be among "
            f"trained.save_epochs, {tuple(trained.save_epochs)}."
        )
    held_out = round(trained.held_out * trained.count)
    if here and min(held_out, trained.count - held_out) < 2:
        raise UserError(
            f"trained.count is {trained.count}, of which trained.held_out, {trained.held_out}, "
            f"holds {held_out} out; two networks are needed on either side."
        )


def check_initialise(config: ConfigDict) -> None:
    """Refuse what cannot be trained, before anything is.

    Args:
      config: of the run.
    Raises:
      UserError: a wrong field of `initialise`; the sentence names it.
    """
    part = config.initialise
    epochs = list(part.epochs)
    if epochs != sorted(set(epochs)):
        raise UserError(
            f"initialise.epochs is {tuple(epochs)}; it is whole numbers from 0 in rising order."
        )
    if len(part.rates) > 1 and not 0 < part.tuned_at <= epochs[-1]:
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
