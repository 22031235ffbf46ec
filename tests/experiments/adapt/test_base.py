"""Generators that are adapted: which meta-models, and what they are shown."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from experiments.adapt import base
from experiments.stages import Stages
from flown_jax.data.pictures import Pictures
from flown_jax.errors import UserError
from flown_jax.networks.adaptation import Generator
from flown_jax.training.stages import StageResult
from tests.experiments.adapt import little
from tests.networks import model

FIELDS = {"adapt__shown": 2, "sampling__steps": 3}


class New:
    """Bright images in colour, in order of their classes."""

    way = 3

    def __init__(self):
        images, labels = model.support("colour")
        self.train = Pictures(images, labels, None)

    def outputs(self, pictures):
        return pictures


def given(tmp_path, monkeypatch, made, name="colour", **values):
    """What `base.given` takes of a finished run that holds a meta-model, for a set's networks."""
    monkeypatch.setattr(base.MetaModel, "restore", lambda *args, **options: made)
    config = little.config("zoo", targets__digits_latin__base="run", **FIELDS, **values)
    target = types.SimpleNamespace(name="digits_latin", spec=model.spec_of(name))
    work = types.SimpleNamespace(path=tmp_path)
    found = base.given(Stages(work), config, target, New())
    return types.SimpleNamespace(**found)


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """Stages are computed at once, and kept nowhere."""

    def stage(workdir, name, inputs, function, *more, **options):
        values = function(types.SimpleNamespace(inputs=types.SimpleNamespace(**inputs)))
        return StageResult(name, "mark", tmp_path, values, 0.0)

    monkeypatch.setattr("experiments.stages.stage", stage)


@pytest.mark.parametrize(("like", "context"), [("", "colour"), ("colour", "colour")])
def test_a_conditional_model_is_shown_new_images(tmp_path, monkeypatch, computed, like, context):
    made = model.meta_model()
    found = given(tmp_path, monkeypatch, made, targets__digits_latin__base_of=like)
    values = found.model.values
    assert values["context"] == context
    images, labels = model.support("colour")
    rows = [row for c in range(3) for row in np.flatnonzero(labels == c)[:2]]
    features = made.features(made._images(images[rows]))
    wanted = features.reshape(3, 2, -1).mean(1)
    np.testing.assert_allclose(values["condition"]["features"][0], wanted, atol=1e-5)
    generator = base.generator(found)
    assert isinstance(generator, Generator) and generator.context.name == context
    assert generator.draw(jax.random.key(0), 2).shape == (2, model.spec_of("colour").size)


def test_networks_of_another_kind_than_the_zoos_are_refused(tmp_path, monkeypatch, computed):
    with pytest.raises(UserError, match="meta-model in run makes networks of .* not those of the"):
        given(tmp_path, monkeypatch, model.meta_model(), name="grey")
    heads = types.SimpleNamespace(parts=types.SimpleNamespace(target=Heads()), conditional=True)
    with pytest.raises(UserError, match="base is run, whose meta-model makes heads; what is adap"):
        given(tmp_path, monkeypatch, heads)


class Heads:
    """A target that is no whole network."""

    what = "heads"


def test_a_run_without_a_meta_model_is_refused(tmp_path):
    config = little.config("zoo", targets__digits_latin__base=str(tmp_path))
    with pytest.raises(UserError, match="holds no finished meta-model: run its experiment"):
        base.opened(config, "digits_latin", None)
