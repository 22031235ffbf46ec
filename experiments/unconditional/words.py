"""What the tables of unconditional generation say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.zoo_measures import HELD_OUT, ORIGINALS, TABLE
from experiments.zoo_targets import SEEDS, STATES, Target

Row = Mapping[str, Any]
GENERATOR, RECONSTRUCTION, NO_MODEL, NETWORKS = (
    "generator",
    "reconstruction",
    "no model",
    "networks",
)
REMARKS = {
    ORIGINALS: "the networks that were learned from",
    HELD_OUT: "of the same zoo, not learned from",
    "fresh": "of the same recipe with other seeds",
    "flown": "flow in the latent of an MLP autoencoder",
    "flown_kl": "in that of AutoencoderKL, velocity by a UNet",
    "flown_graph": "in that of a graph encoder",
    "flown_published": "the paper's recipe: AutoencoderKL, UNet, Kaiming's source",
    "flown_published_mse": "the same with squared errors' mean and a small KL",
    "flown_published_gaussian": "the same from N(0, I)",
    "flown_weights": "weights alone, the paper's objective",
    "flown_task": "the task loss alone",
    "flown_spread": "no reconstruction; networks apart, in the zoo's ball: no model of the zoo",
    "flown_spread_shuffled": "the same, of networks whose weights are shuffled: a control",
    "flown_spread_no_zoo": "the same, decoded from N(0, I), no network read: a control",
    "ddpm": "diffusion in the latent of `flown`",
    "pdiff": "AE-DDPM of p-diff (February 2024)",
    "flow_on_pca": "flow on principal components of the weights, as DeepWeightFlow",
    "average_of_all": "one network; what a regression without a condition predicts",
    "average_of_two": "members matched to each other",
    "interpolation": "the same, at a share drawn from U(0, 1)",
    "gaussian": "mean and deviation of every weight",
    "gaussian_pca": "the same in principal components",
    "memorising_flow": "the exact velocity of the training networks: copies",
    "noise_of_a_tenth": "members and noise of 0.1 deviations: copies",
    "noise_small": "as much as costs nearly nothing",
    "noise_large": "as much as costs a little",
}
# Bars of the two kinds of zoos.
WITHIN, NEAR, DIVERSE = 0.003, 2.0, 0.8
WITHIN_SEEDS, COPIES, FAR, DIVERSE_SEEDS = 0.02, 1 / 24, 0.75, 0.2
# Diverse in earnest: distances that no length has bought.
WITHIN_SPREAD, WORST, DIVERSE_SPREAD, LENGTHS = 0.015, 0.05, 0.6, (0.9, 1.1)


def family(method: str) -> str:
    """What kind of row a method is."""
    if method in (ORIGINALS, HELD_OUT, "fresh"):
        return NETWORKS
    if method.endswith("_reconstruction"):
        return RECONSTRUCTION
    if method.startswith(("flown", "ddpm", "pdiff", "flow_on_pca")):
        return GENERATOR
    return NO_MODEL


def remarks(config: ConfigDict) -> dict[str, str]:
    """Method -> a few words."""
    found = dict(REMARKS)
    found[f"average_of_{config.rivals.averaged}"] = (
        "averages of so many, seeds matched to each other"
    )
    for steps in config.trained_on.steps:
        found[f"average_of_two_trained_{steps}"] = f"trained on for {steps:,} steps"
        found[f"kaiming_trained_{steps}"] = f"random starts, {steps:,} steps"
    return found


def cells(rows: Sequence[Row], name: str) -> dict[str, dict[str, Row]]:
    """Method -> metric -> row, of a target's main table."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["table"] == TABLE and row["set"] == name:
            found.setdefault(row["method"], {})[row["metric"]] = row
    return found


def verdicts(target: Target, rows: Sequence[Row]) -> list[str]:
    """Which rows meet which bars, of a target."""
    of = cells(rows, target.name)
    return _of_states(target.name, of) if target.kind == STATES else _of_seeds(target.name, of)


def _of_states(name: str, of: Mapping[str, Mapping[str, Row]]) -> list[str]:
    def near_accuracy(m: Mapping[str, Row]) -> bool:
        both = ("accuracy_minus_originals", "accuracy_max_minus_originals")
        return all(m[metric]["value"] >= -WITHIN for metric in both)

    def on_the_curve(m: Mapping[str, Row]) -> bool:
        if "diversity" not in m:
            return False
        return m["nearest"]["value"] <= NEAR and m["diversity"]["value"] >= DIVERSE

    accurate, both = _which(of, near_accuracy), _which(of, on_the_curve)
    found = [
        f"{name}: mean and best are within {100 * WITHIN:.1f} points of the states' own for "
        f"{_listed(accurate[GENERATOR])}; of the rows that are no model, for "
        f"{_listed(accurate[NO_MODEL])}."
    ]
    if accurate[NO_MODEL]:
        found[0] += (
            " What needs no model cannot be evidence for one: accuracies on one trajectory, as in "
            "the paper's Table 1, prove little."
        )
    found.append(
        f"{name}: a mean distance of at most {NEAR:g} leave-one-out medians to the nearest state "
        f"together with a diversity of at least {DIVERSE:g}: {_listed(both[GENERATOR])}; of the "
        f"rows that are no model {_listed(both[NO_MODEL])}."
    )
    return found


def _of_seeds(name: str, of: Mapping[str, Mapping[str, Row]]) -> list[str]:
    yard = of[HELD_OUT]["nearest"]["value"]

    def passes(m: Mapping[str, Row]) -> bool:
        if "diversity" not in m:
            return False
        return (
            m["accuracy_minus_originals"]["value"] >= -WITHIN_SEEDS
            and m["copies"]["value"] <= COPIES * m["copies"]["n"]
            and m["nearest"]["value"] > FAR * yard
            and m["diversity"]["value"] >= DIVERSE_SEEDS
        )

    good = _which(of, passes)
    found = [
        f"{name}: within {100 * WITHIN_SEEDS:.0f} points of the originals' mean, at most one copy "
        f"in 24, a nearest distance above {FAR:g} of a held-out seed's and a diversity of at least "
        f"{DIVERSE_SEEDS:g} of the zoo's: {_listed(good[GENERATOR])}; of the rows without a "
        f"generator {_listed(good[NO_MODEL])}."
    ]
    return [*found, *spread(name, of), *pays(name, of)]


def spread(name: str, of: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Which rows are far apart by direction, too, and what such a generator is no model of."""

    def value(m: Mapping[str, Row], metric: str) -> float:
        return float(m[metric]["value"])

    def passes(m: Mapping[str, Row]) -> bool:
        if "direction_diversity" not in m:
            return False
        apart = min(value(m, "diversity"), value(m, "direction_diversity"))
        return (
            value(m, "accuracy_minus_originals") >= -WITHIN_SPREAD
            and value(m, "accuracy_min") >= value(m, "accuracy") - WORST
            and apart >= DIVERSE_SPREAD
            and LENGTHS[0] <= value(m, "length") <= LENGTHS[1]
            and not value(m, "copies")
        )

    good = _which(of, passes)
    found = [
        f"{name}: within {100 * WITHIN_SPREAD:g} points of the originals' mean and the worst "
        f"within {100 * WORST:g} of the row's own, diversity by distance and by direction at least "
        f"{DIVERSE_SPREAD:g}, length {LENGTHS[0]:g} to {LENGTHS[1]:g} of the zoo's and no copy: "
        f"{_listed(good[GENERATOR])}; of the rows without a generator {_listed(good[NO_MODEL])}."
    ]
    if any(method.startswith("flown_spread") for method in of):
        found.append(
            f"{name}: `flown_spread` reconstructs nothing: it is a generator trained on the task, "
            "near the zoo's mean and of its size, and no model of the zoo. Its controls, of "
            "shuffled networks and of none, say what the zoo's networks add."
        )
    return found


def pays(name: str, of: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """When a flow pays beside averages that are trained on: a sentence, where there are both."""
    trained = [m for m in of if m.startswith("average_of_two_trained_")]
    if not trained or "seconds_training" not in of.get("flown", {}):
        return []
    rival, flown = max(trained, key=lambda m: int(m.rsplit("_", 1)[1])), of["flown"]
    each, own = of[rival]["seconds_sampling"]["value"], flown["seconds_sampling"]["value"]
    training = flown["seconds_training"]["value"]
    words = (
        f"{name}: {rival} takes {each:.2g} s a network and training images, and gives "
        f"{_points(of[rival])} points to the originals at diversity "
        f"{of[rival]['diversity']['value']:.2f}; flown takes {training:.0f} s once and "
        f"{own:.2g} s a network, and gives {_points(flown)} at {flown['diversity']['value']:.2f}"
    )
    if own >= each:
        return [f"{words}. The flow never pays in time."]
    count = training / (each - own)
    return [f"{words}. In time the flow pays from {count:,.0f} networks on."]


def _points(m: Mapping[str, Row]) -> str:
    return f"{100 * m['accuracy_minus_originals']['value']:+.1f}"


def _which(of: Mapping[str, Mapping[str, Row]], test: Any) -> dict[str, list[str]]:
    """Family -> methods that pass."""
    found: dict[str, list[str]] = {GENERATOR: [], RECONSTRUCTION: [], NO_MODEL: [], NETWORKS: []}
    for method, metrics in of.items():
        if test(metrics):
            found[family(method)].append(method)
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def introduction(config: ConfigDict, targets: Sequence[Target]) -> str:
    """What was learned from what, in a paragraph."""
    parts = []
    for target in targets:
        kind = "states of one network" if target.kind == STATES else "networks of as many seeds"
        part = "a part of a network" if target.spec.partial else "a whole network"
        parts.append(
            f"{target.name}: {len(target.train)} {kind}, {len(target.held_out)} held out, "
            f"{target.spec.size:,} weights, {part}, judged on {len(target.test.labels):,} images"
        )
    seeds = any(target.kind == SEEDS for target in targets)
    units = " after their units were matched pair by pair" if any(t.cnn for t in targets) else ""
    return (
        f"{config.sampling.samples} networks of each method. {'; '.join(parts)} of the test split. "
        f"Distances are L2{units}, in units of the zoo: nearest "
        "in medians of a training network's distance to the nearest other, diversity in mean "
        "distances of two training networks. Generators learn from the same networks with one seed "
        "of training; each row has draws of its own"
        + (", and states of one trajectory are one independent run." if not seeds else ".")
    )
