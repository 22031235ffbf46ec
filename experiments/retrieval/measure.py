"""What is measured of every method: whole networks for each data set, and which set came out."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.designs import latents_of
from experiments.retrieval.designs import Design
from experiments.retrieval.samples import draw
from experiments.retrieval.zoos import Data, Weights
from experiments.stages import Stages
from flown_jax.data.pictures import Pictures
from flown_jax.evaluation.networks import SetMeasures, Yard, measure, rows_of, yard
from flown_jax.evaluation.novelty import Yardstick
from flown_jax.evaluation.rows import Sample
from flown_jax.networks.confusion import came_out
from flown_jax.training.fingerprints import digest
from flown_jax.training.stages import StageContext, StageResult

ORIGINALS = "originals"
_CLASSIFIED = 1000  # images of a set on which it is told whose networks came out


def units(data: Data, known: StageResult) -> dict[str, str]:
    """Set -> fingerprint of what its rows share: the zoo, the test images, the support draws."""
    return {
        name: digest(
            {
                "zoo": data.zoos[data.unseen.get(name, name)].weights,
                "images": images.test,
                "draws": known.fingerprint,
            }
        )
        for name, images in data.images.items()
    }


class Measures:
    """Measures in units of the zoos themselves.

    Args:
      units: of the rows of each set.

    Attributes:
      yards: finished stage, the units of each set's distances.
    """

    def __init__(
        self, stages: Stages, evaluation: ConfigDict, data: Data, units: dict[str, str]
    ) -> None:
        count = evaluation.matching_images
        self._stages, self._data, self._units = stages, data, units
        self._inputs = {
            "joint": data.joint,
            "train": data.weights,
            "held_out": data.fresh,
            "test": data.pictures("test"),
            "matching": {name: _first(own, count) for name, own in data.pictures("train").items()},
        }
        more = {"yard_networks": evaluation.yard_networks, "last": data.last}
        inputs = {**self._inputs, **more}
        self.yards = stages.common("yards", inputs, _yards, version=2)

    def of(self, method: str, networks: Weights) -> StageResult:
        """A stage: {"rows": tidy rows, "accuracies": of each network, by set}.

        Args:
          networks: (S, D of the set) of each set that the method has any for.
        """
        inputs = {
            **self._inputs,
            "yards": self.yards,
            "last": self._data.last,
            "method": method,
            "sets": [name for name in self._data.names if name in networks],
            "networks": networks,
            "units": self._units,
        }
        return self._stages(f"measures-{method}", inputs, _measure, version=2)


def _first(pictures: Pictures, count: int) -> Pictures:
    return dataclasses.replace(
        pictures, images=pictures.images[:count], labels=pictures.labels[:count]
    )


def _data_of(given: SimpleNamespace, name: str) -> SetMeasures:
    return SetMeasures(
        given.joint.spec(name),
        given.train[name],
        given.held_out[name],
        given.test[name].inputs,
        given.test[name].labels,
        given.matching[name].inputs,
    )


def _yards(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    found = {
        name: yard(_data_of(given, name), given.yard_networks, given.last[name])
        for name in given.train
    }
    return {name: dataclasses.asdict(own) for name, own in found.items()}


def _measure(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    rows, accuracies = [], {}
    for name in given.sets:
        data, stored = _data_of(given, name), given.yards.values[name]
        scale = Yard(**{**stored, "unit": Yardstick(**stored["unit"])})
        itself = given.method == ORIGINALS
        if itself:  # none is compared with an earlier state of itself
            data = dataclasses.replace(data, train=given.networks[name])
            scale = dataclasses.replace(scale, errors=scale.errors[given.last[name]])
        metrics, accuracies[name] = measure(data, scale, given.networks[name], itself=itself)
        rows += rows_of("retrieval", given.method, name, metrics, given.units[name])
    return {"rows": rows, "accuracies": accuracies}


def confusion(
    stages: Stages,
    design: Design,
    flow: StageResult,
    data: Data,
    draws: int,
    units: dict[str, str],
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Shown set -> set that came out -> share of support draws, and the same as tidy rows.

    Args:
      draws: support draws of each set, a network each. units: of the rows of each set.
    """
    inputs = {
        **design.drawn_from(flow),
        "train": data.weights,
        "validation": {
            n: _first(own, _CLASSIFIED) for n, own in data.pictures("validation").items()
        },
        "draws": draws,
    }
    found = stages("confusion", inputs, _classify, version=2).values
    shares: dict[str, dict[str, float]] = {}
    rows = []
    for shown in data.names:
        names = found[shown]
        shares[shown] = {name: names.count(name) / len(names) for name in data.names}
        sample, n = Sample("networks", units[shown]), len(names)
        for name, share in shares[shown].items():
            metric = f"came_out_{name}"
            rows.append(sample.row("confusion", "flown", shown, metric, share, None, n))
        right = shares[shown][shown]
        rows.append(sample.row("retrieval", "flown", shown, "right_set", right, None, n))
    return shares, rows


def _classify(context: StageContext) -> dict[str, Any]:
    given, latents = context.inputs, latents_of(context.inputs.codec)
    vectors = {
        name: np.asarray(latents.targets(draw(given, name, given.draws, context.name)))
        for name in given.train
    }
    shown = {name: (own.inputs, own.labels) for name, own in given.validation.items()}
    return came_out(latents.target, vectors, given.train, shown)
