"""What autoencoders keep of networks: of those that they learned from, of others, of copies."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.one_zoo import Networks
from experiments.reconstruct.methods import Autoencoder
from experiments.stages import Stages
from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.rows import Sample
from flown_jax.evaluation.vectors import explained, measure
from flown_jax.training.fingerprints import digest
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.graph_symmetries import shuffled
from flown_jax.weights.graphs import topology

SETS = ("train", "held_out", "permuted")
ORIGINALS, MEAN, RIVAL = "originals", "mean", "vae_mlp"


def evaluate(
    stages: Stages, config: ConfigDict, networks: Networks, fitted: Mapping[str, StageResult]
) -> dict[str, StageResult]:
    """Method -> a stage {"r2": {set: value}, "accuracy": {set: (n,)}}, of the originals, too.

    These stages alone see test images and held-out networks.
    """
    test = image_sets.load(networks.dataset, "test", config.data.dir)
    limit = slice(0, config.evaluation.test_images or None)
    given = {
        "spec": networks.spec,
        "base": networks.base,
        "train": networks.train,
        "held_out": networks.held_out,
        "seed": config.seed,
        "count": config.evaluation.networks,
        "images": test.images[limit],
        "labels": test.labels[limit],
    }
    found = {ORIGINALS: stages(f"measures-{ORIGINALS}", given, _of_originals)}
    for method, fit in fitted.items():
        inputs = {**given, "fit": fit}
        function = _of_shuffled if method == "shuffled" else _of_method
        found[method] = stages(f"measures-{method}", inputs, function)
    return found


def _of_originals(context: StageContext) -> dict[str, Any]:
    """The networks themselves, copies with their units in another order, and the mean of all."""
    given = context.inputs
    of = {name: _spaced(getattr(given, name), given.count) for name in ("train", "held_out")}
    if not given.spec.partial:
        of["permuted"] = _copies(of["train"], given)
    mean = given.train.mean(0, keepdims=True)
    found = _accuracies({**of, MEAN: mean}, given)
    return {"mean": float(found.pop(MEAN)[0]), "accuracy": found}


def _of_method(context: StageContext) -> dict[str, Any]:
    given, codec = context.inputs, Autoencoder.of(context.inputs.fit.values)
    read = {name: getattr(given, name) for name in ("train", "held_out")}
    wanted = dict(read)
    if not given.spec.partial:
        wanted["permuted"] = _spaced(given.train, given.count)
        read["permuted"] = _copies(wanted["permuted"], given)
    return _kept(codec, read, wanted, given)


def _of_shuffled(context: StageContext) -> dict[str, Any]:
    """Networks in orders that were not seen before, which are to be decoded."""
    given, codec = context.inputs, Autoencoder.of(context.inputs.fit.values)
    read = {name: _copies(getattr(given, name), given) for name in ("train", "held_out")}
    return _kept(codec, read, read, given)


def _kept(
    codec: Autoencoder,
    read: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    given: SimpleNamespace,
) -> dict[str, Any]:
    found = {name: codec.decoded(codec.standardised(w)) for name, w in read.items()}
    r2 = {name: explained(codec.standardised(w), found[name]) for name, w in wanted.items()}
    run = {name: codec.weights(_spaced(x, given.count)) for name, x in found.items()}
    return {"r2": r2, "accuracy": _accuracies(run, given)}


def _accuracies(weights: Mapping[str, np.ndarray], given: SimpleNamespace) -> dict[str, np.ndarray]:
    """Of every set's networks, (n,), on the same images."""
    prepare = Preprocessing.from_dict(given.spec.inputs_dict).apply
    together = np.concatenate(list(weights.values()))
    found = measure(given.spec, together, given.images, given.labels, prepare, host=given.base)
    ends = np.cumsum([len(own) for own in weights.values()])[:-1]
    return dict(zip(weights, np.split(found["accuracy"], ends), strict=True))


def _copies(weights: np.ndarray, given: SimpleNamespace) -> np.ndarray:
    """The same functions, each with its hidden units in a random order of its own."""
    return shuffled(topology(given.spec), weights, np.random.default_rng((given.seed, 3)))


def _spaced(weights: np.ndarray, count: int) -> np.ndarray:
    """So many of them, evenly spaced; 0 for all."""
    count = min(count or len(weights), len(weights))
    return weights[np.arange(count) * len(weights) // count]


def rows(networks: Networks, measured: Mapping[str, StageResult]) -> list[dict[str, Any]]:
    """Tidy rows. States of one network are no independent draws: they have no interval."""
    found: list[dict[str, Any]] = []
    kinds = {"train": networks.train, "held_out": networks.held_out, "permuted": networks.train}
    unit = digest({"train": networks.train, "held_out": networks.held_out})
    sample = Sample("networks", unit)
    rival = measured[RIVAL].values["r2"] if RIVAL in measured else {}

    def add(method: str, name: str, metric: str, value: float, half: Any, count: int) -> None:
        found.append(sample.row("main", method, name, metric, float(value), half, count))

    for method, result in measured.items():
        of = result.values
        for name in SETS:
            if name in of.get("r2", {}):
                r2, count = of["r2"][name], len(kinds[name])
                if name == "permuted":
                    count = len(of["accuracy"][name])
                add(method, name, "reconstruction_r2", r2, None, count)
                if method in ("graph", "graph_pna") and name in rival and name != "permuted":
                    metric = f"reconstruction_r2_minus_{RIVAL}"
                    add(method, name, metric, r2 - rival[name], None, count)
            if name in of["accuracy"]:
                values = np.asarray(of["accuracy"][name])
                mean, half = interval(values)
                add(method, name, "accuracy", mean, None if networks.single else half, len(values))
                add(method, name, "accuracy_std", values.std(ddof=1), None, len(values))
        if method == ORIGINALS:
            for name in ("train", "held_out"):
                add(MEAN, name, "reconstruction_r2", 0.0, None, len(kinds[name]))
                add(MEAN, name, "accuracy", of["mean"], None, 1)
    return found
