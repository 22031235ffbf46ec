"""The audit's numbers: of what was made, of the zoo itself, and of rows that are no model."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.evaluation import audit
from flown_jax.evaluation.audit import Audit, Yard
from flown_jax.evaluation.vectors import predictions
from flown_jax.meta_model.keys import named_seed
from flown_jax.networks import rivals
from flown_jax.training.fingerprints import digest
from flown_jax.weights.statistics import last_states
from flown_jax.weights.zoo import Zoo

SAMPLES, ORIGINALS, HELD_OUT, NOISE = "samples", "originals", "held_out", "noise_of_a_tenth"
AVERAGE = "average_of_"
MEMBERS, STRENGTH = 16, 0.1
_FEWEST = 3  # members of an average that is told from a member


@dataclass(frozen=True, eq=False)
class Found:
    """What was measured.

    Attributes:
      yard: units and predictions of ZOO_A. audits: of each row, by its name.
      unit: fingerprint of what all rows share. images: how many. states: training states in all.
      average: how many members an average has.
    """

    yard: Yard
    audits: dict[str, Audit]
    unit: str
    images: int
    average: int


def measured(
    given: argparse.Namespace, zoo_a: Zoo, zoo_b: Zoo, images: image_sets.ImageSet
) -> Found:
    """The audit of ZOO_B beside its yardsticks.

    Networks of ZOO_A are compared by all their states; units and yardsticks are of the last ones.

    Raises:
      UserError: fewer than two training networks, or images that the networks cannot take.
    """
    split = np.asarray(zoo_a.table["split"])
    if not (split == "train").any():
        raise UserError(f"{zoo_a.path} has no networks that are not held out.")
    train = _drawn(zoo_a.select(split == "train"), given, "a")
    own = np.asarray(last_states(train.table))
    made = _drawn(zoo_b.select(last_states(zoo_b.table)), given, "b")
    labels = images.labels[: given.images]
    prepare = Preprocessing.from_dict(train.spec.inputs_dict).apply

    def predicted(each: Zoo) -> np.ndarray:
        shown = images.images[: given.images]
        return predictions(
            each.spec,
            each.weights,
            shown,
            prepare,
            host=each.base,
            buffers_spec=each.buffers_spec,
            buffers=each.buffers,
        )

    matching = None
    if train.spec.model == "cnn" and not train.spec.partial:
        of_training = image_sets.load(given.data, "train", given.data_dir).images
        matching = prepare(of_training[: given.matching_images])
    scale = audit.yard(
        audit.distances_of(train.spec, matching), train.weights, predicted(train), labels, own=own
    )
    rows: dict[str, Zoo] = {SAMPLES: made}
    if (split == "held_out").any():
        held_out = zoo_a.select(split == "held_out")
        rows[HELD_OUT] = _drawn(held_out.select(last_states(held_out.table)), given, "held out")
    members, count = train.select(own), len(made)
    rows[NOISE] = _noise(members, given.seed, count)
    average = min(MEMBERS, len(own) - 1)
    if average >= _FEWEST:
        rows[f"{AVERAGE}{average}"] = _averages(members, given.seed, count, average, matching)
    audits = {
        name: audit.measure(scale, each.weights, predicted(each)) for name, each in rows.items()
    }
    audits[ORIGINALS] = _itself(scale)
    order = [SAMPLES, ORIGINALS, HELD_OUT, NOISE]
    unit = digest(
        {
            "weights": train.weights,
            "images": images.images[: given.images],
            "labels": labels,
            "matching": matching,
        }
    )
    names = sorted(audits, key=lambda name: order.index(name) if name in order else len(order))
    return Found(scale, {name: audits[name] for name in names}, unit, len(labels), average)


def _itself(scale: Yard) -> Audit:
    """The own networks against each other, without their earlier states."""
    own = scale.own
    among = replace(
        scale,
        train=scale.train[own],
        own=np.arange(len(own)),
        accuracies=scale.accuracies[own],
        errors=scale.errors[own],
        predictions=scale.predictions[own],
    )
    return audit.measure(among, among.train, among.predictions, itself=True)


def _drawn(zoo: Zoo, given: argparse.Namespace, name: str) -> Zoo:
    """At most so many networks, each with all its states that the zoo has."""
    from flown_jax.weights.statistics import networks

    numbers = np.asarray(networks(zoo.table))
    if len(set(numbers)) == 1:  # states of one network
        numbers = np.arange(len(zoo))
    count = numbers.max() + 1
    if given.networks is None or count <= given.networks:
        return zoo
    rng = np.random.default_rng(named_seed(given.seed, "novelty", name))
    return zoo.select(np.isin(numbers, rng.permutation(count)[: given.networks]))


def _noise(members: Zoo, seed: int, count: int) -> Zoo:
    """Members plus noise of a tenth of each tensor's deviation: copies; statistics stay."""
    scale = rivals.tensor_scales(members.spec, members.weights)
    seed = named_seed(seed, "novelty", NOISE)
    return _rival(members, lambda w, s: rivals.noisy(seed, w, count, s, STRENGTH), scale)


def _averages(
    members: Zoo, seed: int, count: int, average: int, matching: np.ndarray | None
) -> Zoo:
    """Means of so many members, of whole CNNs after their units were matched."""
    seed = named_seed(seed, "novelty", AVERAGE, average)
    if matching is None or members.buffers is not None:
        return _rival(members, lambda w, _: rivals.averages_of(seed, w, count, average), None)
    weights = rivals.averages_of(seed, members.weights, count, average, members.spec, matching)
    return replace(members, weights=weights, table={})


def _rival(members: Zoo, make: Any, scale: np.ndarray | None) -> Zoo:
    """Networks made of the members' weights and, where they have them, running statistics."""
    size, parts = members.spec.size, [members.weights]
    if members.buffers is not None:
        parts.append(members.buffers)
    whole = np.concatenate(parts, axis=1)
    if scale is not None:
        scale = np.concatenate([scale, np.zeros(whole.shape[1] - size, scale.dtype)])
    found = make(whole, scale)
    buffers = None if members.buffers is None else found[:, size:]
    return replace(members, weights=found[:, :size], buffers=buffers, table={})


def rows_of(found: Found) -> list[dict[str, Any]]:
    """Tidy rows of all audits."""
    from flown_jax.evaluation.networks import rows_of as tidy

    return [
        row
        for name, each in found.audits.items()
        for row in tidy("novelty", name, "novelty", each.metrics, found.unit)
    ]
