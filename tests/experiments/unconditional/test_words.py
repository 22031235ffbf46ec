"""Which rows meet which bars, and when a flow pays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.unconditional import words

GOOD = {
    "accuracy_minus_originals": 0.0,
    "accuracy_max_minus_originals": 0.0,
    "nearest": 1.0,
    "diversity": 0.9,
    "copies": 0.0,
    "seconds_sampling": 0.001,
}


def rows(name, **methods):
    return [
        {"table": "unconditional", "set": name, "method": m, "metric": k, "value": v, "n": 24}
        for m, of in methods.items()
        for k, v in (GOOD | of).items()
    ]


def test_of_states_what_needs_no_model_is_told_with_its_consequence():
    target = SimpleNamespace(name="run", kind="states")
    found = rows(
        "run",
        flown={},
        pdiff={"accuracy_minus_originals": -0.02},
        gaussian={"nearest": 9.0},
        average_of_16={"diversity": 0.2, "accuracy_max_minus_originals": -0.01},
    )
    first, second = words.verdicts(target, found)
    assert "for `flown`; of the rows that are no model, for `gaussian`." in first
    assert "prove little" in first
    assert "at least 0.8: `flown`, `pdiff`; of the rows that are no model none." in second
    only = rows("run", flown={}, gaussian={"accuracy_minus_originals": -0.1})
    assert "prove little" not in words.verdicts(target, only)[0]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy_minus_originals", -0.021),
        ("copies", 2.0),
        ("nearest", 0.7),
        ("diversity", 0.19),
    ],
)
def test_of_seeds_each_bar_counts(metric, value):
    target = SimpleNamespace(name="zoo", kind="seeds")
    found = rows("zoo", held_out={}, flown={}, average_of_two={metric: value})
    sentence, _ = words.verdicts(target, found)
    assert sentence.endswith("of the zoo's: `flown`; of the rows without a generator none.")


SPREAD = {
    "accuracy": 0.95,
    "accuracy_min": 0.91,
    "direction_diversity": 0.65,
    "length": 1.0,
}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy_minus_originals", -0.016),
        ("accuracy_min", 0.89),
        ("diversity", 0.59),
        ("direction_diversity", 0.59),
        ("length", 1.11),
        ("copies", 1.0),
    ],
)
def test_diverse_in_earnest_is_by_direction_and_at_the_zoos_length(metric, value):
    target = SimpleNamespace(name="zoo", kind="seeds")
    methods = {"flown_spread": SPREAD, "average_of_two": {**SPREAD, metric: value}}
    found = words.verdicts(target, rows("zoo", held_out={}, **methods))
    assert "no copy: `flown_spread`; of the rows without a generator none." in found[1]
    assert "no model of the zoo" in found[2]
    alone = words.verdicts(target, rows("zoo", held_out={}, flown=SPREAD))
    assert len(alone) == 2 and "no copy: `flown`;" in alone[1]


def test_a_flow_pays_from_as_many_networks_as_its_training_took():
    target = SimpleNamespace(name="zoo", kind="seeds")
    trained = {"average_of_two_trained_300": {"seconds_sampling": 1.0}}
    trained["average_of_two_trained_1000"] = {"seconds_sampling": 2.001}
    flown = {"seconds_training": 100.0}
    found = rows("zoo", held_out={}, flown=flown, **trained)
    sentence = words.verdicts(target, found)[-1]
    assert "average_of_two_trained_1000 takes 2 s a network" in sentence
    assert "from 50 networks on" in sentence
    flown["seconds_sampling"] = 3.0
    found = rows("zoo", held_out={}, flown=flown, **trained)
    assert "never pays in time" in words.verdicts(target, found)[-1]


def test_every_method_has_a_family():
    assert words.family("flown_kl") == words.family("flow_on_pca") == words.GENERATOR
    assert words.family("vae_kl_reconstruction") == words.RECONSTRUCTION
    assert words.family("average_of_two_trained_300") == words.NO_MODEL
    assert words.family("fresh") == words.NETWORKS
