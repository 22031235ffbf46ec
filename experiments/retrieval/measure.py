"""What is measured of every method: whole networks for each data set, and which set came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.retrieval_generators import Design, Generators, Weights
from experiments.retrieval_stages import Retrieval, banks
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks.conditions import nearest_set
from flown_jax.networks.evaluation import SetMeasures, Yard, measure, rows_of, yard
from flown_jax.training.fine_tuning import accuracy, fine_tune
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.spec import WeightSpec


class Measures:
    """The data that the measures of every set need, and the units, computed once."""

    def __init__(self, job: Retrieval) -> None:
        self.job = job
        self._sets: dict[str, SetMeasures] = {}

    def data(self, name: str) -> SetMeasures:
        """Networks and images of a set."""
        if name not in self._sets:
            images = self.job.images(name)
            self._sets[name] = SetMeasures(
                self.job.joint.spec(name),
                self.job.part(name).weights,
                self.job.part(name, held_out=True).weights,
                images.test_inputs,
                images.test[1],
                images.train_inputs[: self.job.config.evaluation.matching_images],
            )
        return self._sets[name]

    def inputs(self) -> dict[str, Any]:
        """What every measure depends on."""
        return {
            "zoos": self.job.fingerprints,
            "images": {name: self.job.images(name).fingerprint for name in self.job.names},
            "evaluation": self.job.config.evaluation,
        }

    def yards(self) -> tuple[StageResult, dict[str, Yard]]:
        """The units of each set, and the originals' own measures."""

        def function(_: StageContext) -> dict[str, Any]:
            count = self.job.config.evaluation.yard_networks
            found = {name: yard(self.data(name), count) for name in self.job.names}
            return {
                name: {
                    "unit": dataclasses.asdict(value.unit),
                    "originals": value.originals,
                    "errors": np.packbits(value.errors, axis=1),
                    "among": value.among,
                    "held_out": value.held_out,
                }
                for name, value in found.items()
            }

        result = self.job.common("yards", self.inputs(), function)
        return result, {name: self._yard(name, result.values[name]) for name in self.job.names}

    def _yard(self, name: str, stored: Mapping[str, Any]) -> Yard:
        from flown_jax.evaluation.novelty import Yardstick

        errors = np.unpackbits(stored["errors"], axis=1, count=len(self.job.images(name).test[1]))
        return Yard(
            Yardstick(**stored["unit"]),
            stored["originals"],
            errors.astype(bool),
            stored["among"],
            stored["held_out"],
        )

    def rows(
        self, method: str, weights: Weights, yards: tuple[StageResult, dict[str, Yard]], source: Any
    ) -> StageResult:
        """A stage: {"rows": tidy rows, "accuracies": of each set's networks}.

        Args:
          weights: of each set. source: what they depend on.
        """
        result, units = yards

        def function(_: StageContext) -> dict[str, Any]:
            rows, accuracies = [], {}
            for name, networks in weights.items():
                metrics, accuracies[name] = measure(
                    self.data(name), units[name], networks, itself=method == "originals"
                )
                rows += rows_of("retrieval", method, name, metrics)
            return {"rows": rows, "accuracies": accuracies}

        inputs = {"yards": result, "of": source, "samples": self.job.config.sampling}
        return self.job.stage(f"measures-{method}", inputs, function)


class Rivals:
    """Networks without a generative model, from the same zoos and conditions."""

    def __init__(self, job: Retrieval, generators: Generators, known: StageResult) -> None:
        self.job, self.generators, self.known = job, generators, known
        self.count = job.config.sampling.samples

    def nearest(self, name: str) -> list[str]:
        """The set that retrieval by condition names for each support draw of a set."""
        bank = {k: v[: self.count] for k, v in self.known.values["validation"][name].items()}
        return nearest_set(bank, banks(self.known, "train", self.job.names))

    def by_condition(self, name: str) -> np.ndarray:
        """Training networks of the nearest data set; of another set, read as this one's."""
        rng = np.random.default_rng((self.job.config.seed, 1))
        found = []
        for chosen in self.nearest(name):
            weights = self.job.part(chosen).weights
            one = weights[rng.integers(0, len(weights))][None]
            joint = jnp.asarray(self.job.joint.embed(chosen, one))
            found.append(self.job.joint.extract(name, joint)[0])
        return np.asarray(found)

    def averages(self, aligned: StageResult, name: str) -> np.ndarray:
        """Means of two aligned training networks, other two for each sample."""
        weights = aligned.values["train"][name]
        rng = np.random.default_rng((self.job.config.seed, 2))
        pairs = [rng.permutation(len(weights))[:2] for _ in range(self.count)]
        return np.stack([weights[pair].mean(0) for pair in pairs])

    def kaiming(self, name: str) -> np.ndarray:
        """Untrained networks."""
        spec = self.job.joint.spec(name)
        shape = self.job.images(name).train_inputs.shape[1:]
        keys = jax.random.split(jax.random.key(self.job.config.seed), self.count)
        start = jax.vmap(lambda key: _kaiming(key, spec, shape))
        return np.asarray(start(keys))

    def trained(
        self, context: StageContext, name: str, starts: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The same starts after some steps of training on the set's images, by name.

        The learning rate of each kind of start is chosen on validation images.
        """
        config, images = self.job.config.rivals, self.job.images(name)
        spec = self.job.joint.spec(name)
        size = config.steps * config.batch
        order = np.random.default_rng((self.job.config.seed, 3)).permutation(len(images.train[1]))
        rows = np.resize(order, size)
        recipe = Recipe(steps=config.steps, batch=config.batch, learning_rate=1.0, optimizer="adam")
        common: dict[str, Any] = {
            "optimizer": recipe,
            "images": images.train_inputs[rows],
            "labels": images.train[1][rows],
            "batch": config.batch,
            "epochs": (1,),
        }
        rates, few = tuple(config.learning_rates), config.tuned_on
        tried = np.concatenate([w[:few] for w in starts.values() for _ in rates])
        tried_rates = np.repeat(np.tile(rates, len(starts)), few)
        found = fine_tune(
            context,
            spec,
            tried,
            seeds=range(len(tried)),
            learning_rates=tried_rates,
            name=f"{name}-rates",
            **common,
        )
        scores = accuracy(
            spec, found["weights"][0], images.validation_inputs, images.validation[1]
        ).reshape(len(starts), len(rates), few)
        best = [rates[i] for i in scores.mean(-1).argmax(-1)]
        every = np.concatenate(list(starts.values()))
        found = fine_tune(
            context,
            spec,
            every,
            seeds=range(len(every)),
            learning_rates=np.repeat(best, [len(w) for w in starts.values()]),
            name=name,
            **common,
        )
        ends = np.cumsum([len(w) for w in starts.values()])[:-1]
        return dict(zip(starts, np.split(found["weights"][0], ends), strict=True))


def came_out(
    job: Retrieval, design: Design, vectors: Mapping[str, np.ndarray], count: int = 1000
) -> dict[str, list[str]]:
    """The data set that each sample is a network of, for each set that was shown.

    It is the set on whose validation images the network comes nearest to the training networks'
    accuracy, each time read as a network of that set. Distances of weights would not tell: what
    lies between the members of a zoo is far from all of them.

    Args:
      vectors: standardised joint vectors (S, D) of the samples, by the set that was shown.
      count: images of each set.
    """
    shares: dict[str, list[np.ndarray]] = {shown: [] for shown in vectors}
    for name in job.names:
        images, spec = job.images(name), job.joint.spec(name)
        shown_to, labels = images.validation_inputs[:count], images.validation[1][:count]
        original = accuracy(spec, job.part(name).weights, shown_to, labels).mean()
        for shown, samples in vectors.items():
            weights = np.asarray(design.latents.space.restore(name, jnp.asarray(samples)))
            shares[shown].append(accuracy(spec, weights, shown_to, labels) / original)
    return {
        shown: [job.names[i] for i in np.stack(found).argmax(0)] for shown, found in shares.items()
    }


def _kaiming(key: jax.Array, spec: WeightSpec, shape: tuple[int, ...]) -> jax.Array:
    height, width, channels = shape
    module = spec.module()
    params = initialise_cnn(key, module, (height, width, channels), "kaiming_normal")
    return spec.flatten({"params": jax.tree.map(jnp.asarray, params)})
