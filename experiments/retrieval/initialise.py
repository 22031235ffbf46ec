"""The retrieval experiment's fine-tuning: generated weights as starts, beside others (Table 3)."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.retrieval_generators import Design, Generators
from experiments.retrieval_stages import Retrieval, banks
from flown_jax.data import image_sets
from flown_jax.errors import UserError
from flown_jax.networks import starts
from flown_jax.networks.starts import ZooRecipe
from flown_jax.training.fine_tuning import fine_tune
from flown_jax.training.stages import StageContext, StageResult
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
Weights = dict[str, np.ndarray]


def initialise(
    job: Retrieval,
    generators: Generators,
    design: Design,
    flow: StageResult,
    known: StageResult,
    aligned: StageResult,
) -> StageResult:
    """Test accuracy of every start on every data set, seen and unseen, as it is trained on.

    Each data set is a stage, all runs of which train as one program, after another one that
    chooses a learning rate for each start on validation images.

    Returns:
      A stage with the values {"rows": tidy rows, "curves": {set: {start: {"epochs", "mean",
      "std"}}}, "rates": {set: {start: learning rate}}, "remarks": {set: [sentences]}}.
    Raises:
      UserError: as `check_initialise`.
    """
    check_initialise(job.config)
    unseen = dict(job.config.initialise.unseen)
    present = starts.on_disk(unseen, job.config.data.dir)
    sets = {**dict.fromkeys(job.names), **{name: unseen[name] for name in present}}
    cells = {
        name: _Cell(job, generators, design, flow, known, aligned, name, like).stage()
        for name, like in sets.items()
    }
    absent = [name for name in unseen if name not in present]

    def function(_: StageContext) -> dict[str, Any]:
        found: dict[str, Any] = {"rows": [], "curves": {}, "rates": {}, "remarks": {}}
        epochs = job.config.initialise.epochs
        for name, cell in cells.items():
            values = cell.values
            found["curves"][name], found["rates"][name] = {}, {}
            found["remarks"][name] = values["remarks"]
            for i, start in enumerate(values["starts"]):
                measured, rate = values["accuracy"][:, i], float(values["rates"][i])
                found["rows"] += starts.rows(start, name, epochs, measured, rate)
                found["curves"][name][start] = starts.curve(epochs, measured)
                found["rates"][name][start] = rate
        for name in absent:
            found["remarks"][name] = [f"{name} is not on this disk and is left out."]
        return found

    return job.stage("initialise", {"sets": list(cells.values()), "absent": absent}, function)


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Cell:
    """One data set and the starts of its networks."""

    job: Retrieval
    generators: Generators
    design: Design
    flow: StageResult
    known: StageResult
    aligned: StageResult
    name: str
    like: str | None

    @property
    def network(self) -> str:
        """The set of the meta-model whose network and recipe it has."""
        return self.like or self.name

    @property
    def spec(self) -> WeightSpec:
        return self.job.zoos[self.network].spec

    @property
    def recipe(self) -> ZooRecipe:
        return ZooRecipe.of(self.network, self.job.zoos[self.network].recipe)

    def stage(self) -> StageResult:
        """{"starts": names, "rates" (S,), "accuracy" of test images (E, S, R), "remarks"}."""
        config = self.job.config
        part = config.initialise.to_dict()
        del part["unseen"]
        inputs = {
            "initialise": part,
            "like": self.like,
            "flow": self.flow,
            "sampling": {key: config.sampling[key] for key in ("solver", "steps")},
            "known": self.known,
            "aligned": self.aligned,
            "images": self.job.images(self.name, self.like).fingerprint,
            "split_seed": config.data.split_seed,
            "zoos": self.job.fingerprints,
            "recipe": dataclasses.asdict(self.recipe),
            "seed": config.seed,
        }
        return self.job.stage(f"initialise-{self.name}", inputs, self._train)

    def _train(self, context: StageContext) -> dict[str, Any]:
        part, recipe = self.job.config.initialise, self.recipe
        images, spec = self.job.images(self.name, self.like), self.spec
        seeds, epochs = self._seeds(part.runs + 1), tuple(part.epochs)
        vectors, remarks = self._starts(part.runs + 1)
        chosen = self._chosen(len(images.train[1]), part.images)
        pictures = images.preprocessing.apply(images.train[0][chosen])
        # A schedule is that of the whole run while rates are chosen, too.
        length = max(1, epochs[-1] * -(-len(chosen) // recipe.batch))
        common: dict[str, Any] = {
            "optimizer": recipe.in_steps(length),
            "images": pictures,
            "labels": images.train[1][chosen],
            "batch": recipe.batch,
        }
        names = list(vectors)
        factors = np.full(len(names), part.rates[0])
        if len(part.rates) > 1:
            # Each start's last network is there for this choice alone.
            tried = np.concatenate([np.repeat(vectors[n][-1:], len(part.rates), 0) for n in names])
            tuned = fine_tune(
                context,
                spec,
                tried,
                seeds=[seeds[-1]] * len(tried),
                learning_rates=recipe.learning_rate * np.tile(part.rates, len(names)),
                epochs=(part.tuned_at,),
                name="rates",
                **common,
            )
            measured = starts.tuned_accuracy(
                spec, tuned, (part.tuned_at,), images.validation_inputs, images.validation[1]
            )
            factors = starts.best(part.rates, measured.reshape(len(names), -1))
        rates = recipe.learning_rate * factors
        runs = fine_tune(
            context,
            spec,
            np.concatenate([vectors[n][:-1] for n in names]),
            # Runs of the same number see the data in the same order, whatever their start.
            seeds=seeds[:-1] * len(names),
            learning_rates=np.repeat(rates, part.runs),
            epochs=epochs,
            name="runs",
            **common,
        )
        measured = starts.tuned_accuracy(spec, runs, epochs, images.test_inputs, images.test[1])
        return {
            "starts": names,
            "rates": rates,
            "accuracy": measured.reshape(len(epochs), len(names), part.runs),
            "remarks": list(recipe.remarks) + remarks,
        }

    def _starts(self, count: int) -> tuple[Weights, list[str]]:
        """`count` networks of every start there is, and sentences on which these are."""
        job, spec, seed = self.job, self.spec, self._seeds(1)[0]
        channels = spec.inputs_dict.get("channels")
        fitting = [n for n in job.names if job.zoos[n].spec.inputs_dict.get("channels") == channels]
        own = self._nearest(fitting)
        z, _ = self.generators.sampled(self.design, self.flow, self.name, count)
        found = {"flown": np.asarray(self.design.latents.decode(self.network, jnp.asarray(z)))}
        remarks = [f"raw_mean and aligned_mean are means of the networks of {own}."]
        schemes = {"zoo_start": self.recipe.initialisation, "kaiming_normal": "kaiming_normal"}
        for i, (start, scheme) in enumerate(schemes.items()):
            drawn = starts.random_starts(seed + i, spec, count, scheme) if scheme else None
            if drawn is not None:
                found[start] = drawn
            elif scheme:
                remarks.append(f"There is no {start}: it is known for convolution networks alone.")
        found["raw_mean"] = starts.mean_start(job.part(own).weights, count)
        found["aligned_mean"] = starts.mean_start(self.aligned.values["train"][own], count)
        if others := [name for name in fitting if name != self.name]:
            other = self._nearest(others)
            found["trained_other"] = starts.members(seed, job.part(other).weights, count)
            remarks.append(f"trained_other are networks of {other}.")
        else:
            remarks.append("No other zoo is of images of as many channels: no trained_other.")
        if self.like is None:
            found["originals"] = starts.members(seed, job.part(self.name).weights, count)
        return {start: found[start] for start in STARTS if start in found}, remarks

    def _nearest(self, names: list[str]) -> str:
        condition = self.known.values["validation"][self.name]
        return starts.nearest(condition, banks(self.known, "train", names))

    def _seeds(self, count: int) -> list[int]:
        """Of this run and data set; the first of them do not depend on how many are wanted."""
        rng = np.random.default_rng([self.job.config.seed, zlib.crc32(self.name.encode())])
        return [int(seed) for seed in rng.integers(2**31 - 1 - len(STARTS), size=count)]

    def _chosen(self, available: int, limit: int) -> np.ndarray:
        """Training images of an epoch, the same ones for every seed of the run."""
        order = np.random.default_rng(self.job.config.data.split_seed).permutation(available)
        return np.sort(order[: limit or None])


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
