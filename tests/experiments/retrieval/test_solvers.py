"""What solvers change in a run's networks: the reference, the figures, and whose config it is."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from configs.retrieval import get_config
from experiments import runs
from experiments.command import fields_of
from experiments.retrieval import solvers
from flown_jax.training.fingerprints import plain_values
from tests.weights import base_models


def test_figures_are_in_units_of_the_reference():
    spec, random = base_models.spec("mlp"), np.random.default_rng(0)
    reference = random.normal(size=(4, spec.size)).astype(np.float32)
    images = random.normal(size=(30, *base_models.MODELS["mlp"][1])).astype(np.float32)
    logits = np.stack([np.asarray(spec.apply(w, images)) for w in reference])
    labels = logits[1].argmax(-1)  # the second network is always right
    found = {
        ("euler", 1): (0.5 * reference, 1.0),
        ("euler", 9): (np.tile(reference[1], (4, 1)), 9.0),
        solvers.REFERENCE: (reference, 40.0),
    }
    shown = types.SimpleNamespace(inputs=images, labels=labels)
    half, same, last = solvers._rows("digits", spec, shown, found)
    assert (last["apart"], last["off"], last["nfe"]) == (1.0, 0.0, 40.0)
    right = (logits.argmax(-1) == labels).mean(1)
    np.testing.assert_allclose([last["accuracy"], last["worst"]], [right.mean(), right.min()])
    assert abs(half["apart"] - 0.5) < 1e-6
    unit = solvers._apart(reference)
    expected = 0.5 * np.linalg.norm(reference, axis=1).mean() / unit
    np.testing.assert_allclose(half["off"], expected, rtol=1e-5)
    assert (same["accuracy"], same["worst"], same["apart"]) == (1.0, 1.0, 0.0)
    lines = solvers.table([half, same, last]).splitlines()
    assert lines[2].startswith("| digits | euler | 1 | 1 | ")
    assert lines[4].startswith("| digits | dopri5 | adaptive | 40 | ")


def test_the_config_of_a_run_is_read_as_it_was(tmp_path):
    config = get_config("tiny")
    config.unlock()
    config.sampling.steps, config.seed = 3, 7
    (tmp_path / "config.json").write_text(json.dumps(plain_values(config)))
    found = solvers._stored(tmp_path)
    assert plain_values(found) == plain_values(config)
    kinds = {field: type(value) for field, value in fields_of(config)}
    assert {field: type(value) for field, value in fields_of(found)} == kinds


@pytest.mark.parametrize(
    ("experiment", "more", "sentence"),
    [
        (None, [], "holds no results.json of a finished run"),
        ("fewshot", [], "holds no run of experiments.retrieval"),
        ("retrieval", ["--networks=1"], "--networks=1: 2 or more are wanted"),
    ],
)
def test_what_is_no_finished_run_is_one_sentence(
    tmp_path, monkeypatch, capsys, experiment, more, sentence
):
    if experiment:
        fields = {"experiment": experiment, "variant": "tiny", "seed": 0, "rows": [], "titles": {}}
        results = {**dict.fromkeys(runs._FIELDS), **fields}
        (tmp_path / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(sys, "argv", ["solvers", str(tmp_path), *more])
    with pytest.raises(SystemExit) as stopped:
        solvers.main()
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
