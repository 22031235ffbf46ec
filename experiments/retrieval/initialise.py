"""Generated weights as starts of fine-tuning, beside others (the paper's Table 3)."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.designs import latents_of
from experiments.retrieval.designs import Design
from experiments.retrieval.samples import draw
from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages
from flown_jax.evaluation.zoo_retrieval_tables import start_curve, start_rows
from flown_jax.meta_model.sampling import sample_keys
from flown_jax.networks import starts
from flown_jax.networks.space import OfSet
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.training.tuning import Training, train_with_rates, tuned_accuracy
from flown_jax.training.zoo_recipe import ZooRecipe
from flown_jax.weights.spec import WeightSpec

# In the order of the table.
STARTS = (
    "flown",
    "zoo_start",
    "kaiming_normal",
    "raw_mean",
    "aligned_mean",
    "trained_other",
    "originals",
)
_TRAINING = ("images", "epochs", "runs", "rates", "tuned_at")


def initialise(
    stages: Stages,
    config: ConfigDict,
    data: Data,
    design: Design,
    flow: StageResult,
    aligned: StageResult,
    units: dict[str, str],
) -> dict[str, Any]:
    """Test accuracy of every start on every data set, seen and unseen, as it is trained on.

    Each data set is a stage, all runs of which train as one program, after another one that
    chooses a learning rate for each start on validation images.

    Args:
      units: of the rows of each set.
    Returns:
      {"rows": tidy rows, "curves": {set: {start: {"epochs", "mean", "std"}}}, "rates": {set:
      {start: learning rate}}, "remarks": {set: [sentences]}}.
    """
    part = config.initialise
    found: dict[str, Any] = {"rows": [], "curves": {}, "rates": {}, "remarks": {}}
    for name in data.images:
        like = data.unseen.get(name)
        zoo = data.zoos[like or name]
        inputs = {
            **design.drawn_from(flow),
            "initialise": ConfigDict({field: part[field] for field in _TRAINING}),
            "name": name,
            "like": like,
            "sets": list(data.names),
            "specs": {n: z.spec for n, z in data.zoos.items()},
            "train": {n: data.weights[n][rows] for n, rows in data.last.items()},
            "aligned": {n: aligned.values["train"][n][rows] for n, rows in data.last.items()},
            "recipe": ZooRecipe.of(like or name, zoo.recipe),
            "images": {k: getattr(data.images[name], k) for k in ("train", "validation", "test")},
            "split_seed": config.data.split_seed,
        }
        values = stages(f"initialise-{name}", inputs, _train, version=2).values
        found["curves"][name], found["rates"][name] = {}, {}
        found["remarks"][name] = values["remarks"]
        for i, start in enumerate(values["starts"]):
            measured, rate = values["accuracy"][:, i], float(values["rates"][i])
            found["rows"] += start_rows(start, name, part.epochs, measured, rate, units[name])
            found["curves"][name][start] = start_curve(part.epochs, measured)
            found["rates"][name][start] = rate
    for name in part.unseen:
        if name not in data.unseen:
            found["remarks"][name] = [f"{name} is not on this disk and is left out."]
    return found


def _train(context: StageContext) -> dict[str, Any]:
    """{"starts": names, "rates" (S,), "accuracy" of test images (E, S, R), "remarks"}."""
    given, part, recipe = context.inputs, context.inputs.initialise, context.inputs.recipe
    spec: WeightSpec = given.specs[given.like or given.name]
    train, validation, test = (given.images[k] for k in ("train", "validation", "test"))
    seeds, epochs = _seeds(given, part.runs + 1), tuple(part.epochs)
    vectors, remarks = _starts(given, spec, part.runs + 1)
    # Training images of an epoch, the same ones for every seed of the run.
    order = np.random.default_rng(given.split_seed).permutation(len(train.labels))
    chosen = np.sort(order[: part.images or None])
    data = Training(
        train.preprocessing.apply(train.images[chosen]),
        train.labels[chosen],
        validation.inputs,
        validation.labels,
    )
    # A schedule is that of the whole run while rates are chosen, too.
    steps = max(1, epochs[-1] * -(-len(chosen) // recipe.batch))
    rates, runs = train_with_rates(
        context,
        spec,
        {start: networks[:-1] for start, networks in vectors.items()},
        # Each start's last network is there for this choice alone.
        {start: networks[-1:] for start, networks in vectors.items()},
        [recipe.learning_rate * rate for rate in part.rates],
        data,
        # Runs of the same number see the data in the same order, whatever their start.
        seeds=([seeds[-1]] * len(vectors) * len(part.rates), seeds[:-1] * len(vectors)),
        epochs=epochs,
        tuned_at=part.tuned_at,
        names=("rates", "runs"),
        optimizer=recipe.in_steps(steps),
        batch=recipe.batch,
    )
    measured = tuned_accuracy(spec, runs, epochs, test.inputs, test.labels)
    return {
        "starts": list(vectors),
        "rates": rates,
        "accuracy": measured.reshape(len(epochs), len(vectors), part.runs),
        "remarks": [*recipe.remarks, *remarks],
    }


def _starts(given: SimpleNamespace, spec: WeightSpec, count: int) -> tuple[Weights, list[str]]:
    """`count` networks of every start there is, and sentences on which these are."""
    seed, channels = _seeds(given, 1)[0], spec.inputs_dict.get("channels")
    fitting = [n for n in given.sets if given.specs[n].inputs_dict.get("channels") == channels]
    own = _nearest(given, fitting)
    z = draw(given, given.name, count, "initialise")
    target = OfSet(given.like or given.name)
    found = {"flown": np.asarray(latents_of(given.codec).decode(z, target))}
    remarks = [f"raw_mean and aligned_mean are means of the networks of {own}."]
    schemes = {"zoo_start": given.recipe.initialisation, "kaiming_normal": "kaiming_normal"}
    for i, (start, scheme) in enumerate(schemes.items()):
        keys = sample_keys(jax.random.key(seed + i), count)
        drawn = starts.random_starts(keys, spec, scheme) if scheme else None
        if drawn is not None:
            found[start] = drawn
        elif scheme:
            remarks.append(f"There is no {start}: it is known for convolution networks alone.")
    found["raw_mean"] = starts.mean_start(given.train[own], count)
    found["aligned_mean"] = starts.mean_start(given.aligned[own], count)
    if others := [name for name in fitting if name != given.name]:
        other = _nearest(given, others)
        found["trained_other"] = starts.members(seed + len(schemes), given.train[other], count)
        remarks.append(f"trained_other are networks of {other}.")
    else:
        remarks.append("No other zoo is of images of as many channels: no trained_other.")
    if given.like is None:
        found["originals"] = starts.members(seed, given.train[given.name], count)
    return {start: found[start] for start in STARTS if start in found}, remarks


def _nearest(given: SimpleNamespace, names: list[str]) -> str:
    known = given.conditions.values
    banks = {name: known["train"][name] for name in names}
    return starts.nearest(known["validation"][given.name], banks)


def _seeds(given: SimpleNamespace, count: int) -> list[int]:
    """Of this run and data set; the first of them do not depend on how many are wanted."""
    rng = np.random.default_rng([given.seed, zlib.crc32(given.name.encode())])
    return [int(seed) for seed in rng.integers(2**31 - 1 - len(STARTS), size=count)]
