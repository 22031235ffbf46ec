"""Designs beside the main one share what they do not change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from configs.retrieval import get_config
from experiments.retrieval import conditions, designs

MADE, KNOWN = "an autoencoder", SimpleNamespace(values={})
ALIGNED = SimpleNamespace(values={"train": {}})


class Stages:
    """Names of the stages that are asked for."""

    def __init__(self):
        self.names = []

    def __call__(self, name, inputs, function, **more):
        self.names.append(name)
        return MADE

    common = __call__


@pytest.fixture
def config():
    return get_config("published")


def make(stages, config, name="", main=None):
    data = SimpleNamespace(joint=None, weights={}, pictures=lambda kind: {})
    return designs.make(stages, config, data, ALIGNED, KNOWN, name, main)


def test_an_autoencoder_is_trained_once_for_designs_that_do_not_change_it(config):
    stages = Stages()
    main = make(stages, config)
    for name in config.beside:
        found = make(stages, config, name, main)
        assert found.codec is MADE and found.name == name
    changed = {"with_task_loss", "with_alignment", "with_mlp_codec"}
    assert set(stages.names) == {"codec", *(f"codec-{name}" for name in changed)}


def test_designs_that_are_shown_something_else_have_conditions_of_their_own(config, monkeypatch):
    seen = []
    monkeypatch.setattr(conditions, "learn_to_see", lambda stages, features, part: part.entries)

    def show(stages, config, data, sight, name):
        seen.append((sight, name))
        return "others"

    monkeypatch.setattr(conditions, "show", show)
    found = {n: conditions.show_beside(None, config, None, KNOWN, n) for n in config.beside}
    assert seen == [(("features", "caml"), "conditions-with_features")]
    assert found.pop("with_features") == "others" and all(own is KNOWN for own in found.values())
