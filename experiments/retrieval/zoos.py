"""The zoos of the run's data sets, read or trained here, and their alignment."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.zoo import variants as zoo_variants
from experiments import given_zoo
from experiments.own_zoos import seeds_zoo
from experiments.pictures import copies, read_images
from experiments.stages import Stages
from flown_jax.data.pictures import Images, Pictures
from flown_jax.errors import UserError
from flown_jax.evaluation.classification import accuracy, index_of_best
from flown_jax.evaluation.networks import log_probabilities
from flown_jax.networks.starts import on_disk
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.aligned import ZooImages, align_zoos
from flown_jax.weights.alignment import Reference, apply_reference
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import last_states, networks
from flown_jax.weights.zoo import Zoo

Weights = dict[str, np.ndarray]
_JUDGED = 2000  # validation images that tell which network is best


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Networks and images of a run.

    Attributes:
      zoos, held_out: of each data set of the meta-model, the training networks at the epochs that
        are learned from, and those of other seeds.
      images: of each of these sets and of the foreign ones.
      unseen: foreign set on this disk -> the set whose network and preprocessing it takes.
      unknown: sets of the meta-model whose zoos do not say which images their networks saw.
      remarks: of each set of the meta-model, sentences on its images.
    """

    zoos: dict[str, Zoo]
    held_out: dict[str, Zoo]
    images: dict[str, Images]
    unseen: dict[str, str]
    unknown: tuple[str, ...] = ()
    remarks: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets of the meta-model."""
        return tuple(self.zoos)

    @functools.cached_property
    def joint(self) -> JointSpace:
        """Where the weights of each data set lie."""
        return JointSpace.of({name: found.spec for name, found in self.zoos.items()})

    @property
    def weights(self) -> Weights:
        """The training networks (N, D of the set) of each set, at all chosen epochs."""
        return {name: found.weights for name, found in self.zoos.items()}

    @property
    def last(self) -> dict[str, list[int]]:
        """Rows of `weights` that are the last state of a network.

        States of one network are no independent networks: spreads and means are of these.
        """
        return {name: last_states(found.table) for name, found in self.zoos.items()}

    @property
    def fresh(self) -> Weights:
        """The last state of each held-out network (H, D of the set) of each set."""
        return {name: z.weights[last_states(z.table)] for name, z in self.held_out.items()}

    def pictures(self, kind: str) -> dict[str, Pictures]:
        """`train`, `validation` or `test` images of each data set of the meta-model."""
        return {name: getattr(self.images[name], kind) for name in self.zoos}


def read_data(stages: Stages, config: ConfigDict) -> Data:
    """The zoos of a config, those without a folder trained first, and their images."""
    read = {name: read_zoo(stages, config, name) for name in config.zoos}
    zoos = {name: train for name, (train, _) in read.items()}
    held_out = {name: others for name, (_, others) in read.items()}
    unseen = dict(config.initialise.unseen)
    present = {name: unseen[name] for name in on_disk(unseen, config.data.dir)}
    limit = config.evaluation.test_images
    images, unknown, remarks = {}, [], {}
    for name, found in zoos.items():
        doubt, images[name] = read_images(name, found, config.data, test_images=limit)
        unknown += [name] * bool(doubt)
        remarks[name] = [doubt] * bool(doubt) + copies(images[name])
    for name, like in present.items():
        margin = config.initialise.margins.get(name, 0)
        _, images[name] = read_images(
            name, zoos[like], config.data, foreign=True, test_images=limit, margin=margin
        )
    return Data(zoos, held_out, images, present, tuple(unknown), remarks)


def read_zoo(stages: Stages, config: ConfigDict, name: str) -> tuple[Zoo, Zoo]:
    """Training and held-out networks of a data set, at the epochs that are learned from.

    Raises:
      UserError: a zoo of another set, without the epochs, or of too few networks.
    """
    whole = given_zoo.load(config.zoos[name] or _trained(stages, config, name))
    if whole.dataset != name:
        raise UserError(
            f"zoos.{name} is {whole.path}, a zoo for {whole.dataset or 'an unknown set'}."
        )
    chosen: Any = last_states(whole.table)
    if config.epochs:
        chosen = [i for i, e in enumerate(whole.table["epoch"]) if e in config.epochs]
        if not chosen:
            there = ", ".join(map(str, sorted(set(whole.table["epoch"]))))
            raise UserError(
                f"the zoo of {name} has no epoch of {tuple(config.epochs)}; it has {there}: set "
                "epochs."
            )
    whole = whole.select(chosen)
    of = networks(whole.table)
    if len(set(of)) == 1:  # of a single trajectory every state counts as a network
        of = list(range(len(whole)))
    parts = []
    for kind, wanted in (("train", config.networks), ("held_out", 0)):
        rows = [i for i, split in enumerate(whole.table["split"]) if split == kind]
        numbers = list(dict.fromkeys(of[i] for i in rows))
        if len(numbers) < max(2, wanted):
            needed = f"networks asks for {wanted} (0 takes all)" if wanted else "two are needed"
            raise UserError(
                f"the zoo of {name} has {len(numbers)} networks of the split {kind!r} at the "
                f"chosen epochs; {needed}."
            )
        chosen = set(numbers[: wanted or None])
        parts.append(whole.select([i for i in rows if of[i] in chosen]))
    return parts[0], parts[1]


def _trained(stages: Stages, config: ConfigDict, name: str) -> Path:
    """The folder of a zoo that is trained here."""
    if name not in zoo_variants():
        raise UserError(
            f"zoos.{name} is empty, and configs/zoo.py has no variant {name!r}: give a folder."
        )
    return seeds_zoo(stages, name, config.data.dir, config.trained)


def align(stages: Stages, alignment: ConfigDict, data: Data) -> StageResult:
    """A stage: `train` and `held_out` networks of every set with their units in one order.

    Args:
      alignment: of the config, of which `encode` is not used.
    """
    leader, count = alignment.leader or data.names[0], alignment.images
    leads, pictures = {name: _best(found) for name, found in data.zoos.items()}, {}
    for name, own in data.pictures("train").items():
        apply, first = own.preprocessing.apply, data.images[leader].train
        pictures[name] = ZooImages(apply(own.images[:count]), apply(first.images[:count]))
    inputs = {
        "rounds": alignment.rounds,
        "leader": leader,
        "joint": data.joint,
        "best": leads,
        # Where a zoo does not say it, validation images tell which network is best.
        "validation": {n: data.images[n].validation for n, best in leads.items() if best is None},
        "train": data.weights,
        "held_out": {name: found.weights for name, found in data.held_out.items()},
        "images": pictures,
    }
    return stages.common("aligned", inputs, _align)


def _best(zoo: Zoo) -> int | None:
    """The network with the best accuracy on validation images; None where that is not known."""
    known = zoo.table.get("validation_accuracy", [None])
    return None if any(value is None for value in known) else int(np.argmax(known))


def _best_of(spec: WeightSpec, weights: np.ndarray, pictures: Pictures) -> int:
    log_probs = log_probabilities(spec, weights, pictures.inputs[:_JUDGED])
    return index_of_best(accuracy(log_probs, pictures.labels[:_JUDGED]))


def _align(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    order = sorted(given.train, key=lambda name: name != given.leader)
    weights = {name: given.train[name] for name in order}
    best = {
        name: _best_of(given.joint.spec(name), given.train[name], given.validation[name])
        if lead is None
        else lead
        for name, lead in given.best.items()
    }
    found = align_zoos(given.joint, weights, best, given.images, rounds=given.rounds)
    values: dict[str, Any] = {"train": {}, "held_out": {}, "correlations": {}}
    for name, aligned in found.items():
        reference = Reference(aligned.reference.images, aligned.reference.activations)
        others = apply_reference(given.joint.spec(name), given.held_out[name], reference)
        values["train"][name] = aligned.weights
        values["held_out"][name] = others.weights
        values["correlations"][name] = aligned.correlations.mean(0)
    return values
