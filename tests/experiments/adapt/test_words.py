"""What tables of adaptation say, in sentences."""

from __future__ import annotations

import pytest

from experiments.adapt.words import verdicts
from experiments.zoo_measures import TABLE

ACCURACIES = {"static": 0.2, "plain_generated": 0.4, "plain_mean": 0.3}


def table(**more):
    return [
        {"table": TABLE, "set": "pair", "method": method, "metric": metric, "value": value}
        for method, accuracy in {**ACCURACIES, **more}.items()
        for metric, value in (("accuracy", accuracy), ("accuracy_vote", accuracy))
    ]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"velocity": 0.25}, "velocity is 15.0 points below plain_generated, the best of plain"),
        ({"residual": 0.38, "decoder": 0.45}, "decoder is 5.0 points above plain_generated"),
    ],
)
def test_the_best_part_is_compared_with_the_best_fine_tuning(parts, sentence):
    found = verdicts("pair", table(**parts))
    assert any(sentence in each for each in found)
    assert len(found) == len(parts) + 2


def test_few_images_and_shared_steps_are_no_rival():
    rows = table(decoder=0.45, plain_generated_100=0.9, plain_mean_50_images=0.8)
    assert any("5.0 points above plain_generated," in each for each in verdicts("pair", rows))
