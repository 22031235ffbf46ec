"""Test images reach the measures alone; images to choose by, and held-out networks, what they may.

Supports, which show a data set to the flow, are drawn from images that no network was trained on,
and these are not the images that anything is tested on.
"""

from __future__ import annotations

import dataclasses
import pathlib
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.retrieval import get_config
from experiments import tasks
from experiments.retrieval import __main__ as command
from experiments.retrieval import conditions, initialise, rivals, samples, zoos
from flown_jax.data.pictures import Images, Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.training import Records, StageContext, StageResult
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.tuning import Training
from flown_jax.training.zoo_recipe import ZooRecipe
from flown_jax.weights.zoo import Zoo
from tests.experiments import seen
from tests.experiments.fewshot import test_choices_stages as few_shot
from tests.experiments.fewshot import test_fingerprints as few_shot_fields
from tests.experiments.retrieval import test_fingerprints as fields

ZOOS, UNSEEN = tuple(fields.CHANNELS), {"greek": "latin"}
KINDS = ("train", "validation", "test")
VALUES = {
    **fields.VALUES,
    "aligned": lambda inputs: {part: inputs[part] for part in ("train", "held_out")},
}
SIGHT = conditions.Sight("encoder", "transform", {}, None, ConfigDict(), (4, 4, 1))


def pictures(name, kind, poisoned):
    rng = np.random.default_rng([len(name), KINDS.index(kind), kind == poisoned])
    spec = fields.spec_of(UNSEEN.get(name, name))
    images = rng.integers(0, 256, (60, 4, 4, spec.inputs_dict["channels"]), dtype=np.uint8)
    preprocessing = Preprocessing.from_dict(spec.inputs_dict)
    return Pictures(images, rng.permutation(np.arange(60) % 10), preprocessing)


def networks(name, split, poisoned):
    """A zoo's part, that says everything of its networks."""
    rng = np.random.default_rng([len(name), split == "train", split == poisoned])
    spec, count = fields.spec_of(name), 4
    columns = {"validation_accuracy": 0.1, "test_accuracy": 0.2}
    table = {
        "seed": list(range(count)),
        "epoch": [1] * count,
        "split": [split] * count,
        "train_accuracy": [0.5, 0.4, 0.3, 0.2],
        **{
            column: list(np.roll([0.9, 0.8, 0.7, 0.6], column == poisoned) - low)
            for column, low in columns.items()
        },
    }
    weights = rng.normal(size=(count, spec.size)).astype(np.float32)
    recipe = {"optimizer": "adam", "learning_rate": 0.1, "batch": 5}
    return Zoo(weights, spec, table, name, recipe)


def data(poisoned="", column=True):
    """What a run reads, with one part of it replaced."""
    parts = {s: {n: networks(n, s, poisoned) for n in ZOOS} for s in ("train", "held_out")}
    if not column:
        for found in parts["train"].values():
            del found.table["validation_accuracy"]
    images = {
        name: Images(*(pictures(name, kind, poisoned) for kind in KINDS), tuple("abcdefghij"))
        for name in (*ZOOS, *UNSEEN)
    }
    return zoos.Data(parts["train"], parts["held_out"], images, UNSEEN)


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """marks(what is replaced): fingerprints of all stages' own inputs."""
    work, known = types.SimpleNamespace(path=pathlib.Path(tmp_path_factory.mktemp("seen"))), {}

    def load(name, split, data_dir=None):
        assert (name, split) == (get_config("tiny").prior.dataset, "train")
        return fields.load(name, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields.prior.image_sets, "load", load)
        patch.setattr(command, "learn_to_see", lambda *_: SIGHT)
        for name in ("sentences", "write"):
            patch.setattr(command, name, lambda *_: [])

        def of(poisoned="", **more):
            if (key := (poisoned, *more)) not in known:
                patch.setattr(command, "read_data", lambda *_: data(poisoned, **more))
                config = get_config("tiny")
                known[key] = seen.marks(lambda: command.compute(config, work), VALUES, patch)
            return known[key]

        yield of


def named(marks, *beginnings):
    return {name for name in marks() if name.startswith(beginnings)}


def test_test_images_reach_the_measures_alone(marks):
    measures = named(marks, "yards", "measures-", "initialise-")
    assert len(measures) > 12
    assert seen.differ(marks(), marks("test")) == measures


def test_images_to_choose_by_reach_what_is_shown_and_what_chooses(marks):
    choosing = named(marks, "conditions", "rivals", "confusion", "initialise-")
    assert seen.differ(marks(), marks("validation")) == choosing


def test_held_out_networks_reach_the_measures_alone(marks):
    """And the alignment, which brings them into the order that the others already have."""
    measures = named(marks, "aligned", "yards", "measures-")
    assert seen.differ(marks(), marks("held_out")) == measures


def test_accuracies_on_test_images_choose_nothing(marks):
    assert seen.differ(marks(), marks("test_accuracy")) == set()
    assert seen.differ(marks(), marks("validation_accuracy")) == {"aligned"}
    # Importers do not always know the accuracies on images to choose by.
    without = {"column": False}
    assert seen.differ(marks(**without), marks("test_accuracy", **without)) == set()


@pytest.fixture
def aligned(tmp_path, monkeypatch):
    """aligned(what is replaced): values of the stage."""

    def of(poisoned="", **more):
        given = {}
        stages = seen.stages.Stages(types.SimpleNamespace(path=tmp_path))
        stages.count = lambda result: result

        def stage(_, name, inputs, *__):
            given.update(inputs)
            return types.SimpleNamespace(fingerprint="")

        monkeypatch.setattr(seen.stages, "stage", stage)
        zoos.align(stages, get_config("tiny").alignment, data(poisoned, **more))
        return run(zoos._align, tmp_path, **given)

    return of


def test_held_out_networks_leave_the_aligned_ones_as_they_were(aligned):
    one, other = aligned(), aligned("held_out")
    for name in ZOOS:
        np.testing.assert_array_equal(one["train"][name], other["train"][name])
        assert not np.array_equal(one["held_out"][name], other["held_out"][name])


def test_where_a_zoo_does_not_say_it_validation_images_tell_the_reference(aligned, monkeypatch):
    found = {}

    def log_probabilities(spec, networks, images):
        """The last network is right about every image, if these are those to choose by."""
        name = next(name for name in ZOOS if fields.CHANNELS[name] == images.shape[-1])
        labels = data().images[name].validation.labels
        np.testing.assert_array_equal(images, data().images[name].validation.inputs)
        right = np.eye(10)[labels]
        return np.stack([*[1 - right] * (len(networks) - 1), right])

    def align_zoos(joint, weights, references, images, **_):
        found.update(references)
        for name, own in data().weights.items():  # and nothing of the held-out networks
            np.testing.assert_array_equal(weights[name], own)
        return {}

    monkeypatch.setattr(zoos, "log_probabilities", log_probabilities)
    monkeypatch.setattr(zoos, "align_zoos", align_zoos)
    aligned()
    assert found == dict.fromkeys(ZOOS, 0)  # the most accurate, by the zoo
    aligned(column=False)
    assert found == dict.fromkeys(ZOOS, 3)


def test_the_sight_comes_from_no_test_class(tmp_path, monkeypatch):
    """Its encoder, the transform of its features and CAML are the few-shot command's."""
    monkeypatch.setattr(tasks, "draw_tasks", few_shot_fields.draw_tasks)
    config = get_config("tiny")
    config.unlock()
    config.condition.entries = ("features", "caml")
    made = {}

    def learn(poisoned):
        stages = seen.stages.Stages(types.SimpleNamespace(path=tmp_path))
        sight = conditions.learn_to_see(stages, config.features, config.condition)
        made[poisoned] = plain_values(sight)

    values = few_shot_fields.VALUES
    marks = {
        poisoned: seen.marks(
            lambda poisoned=poisoned: learn(poisoned),
            {**values, **few_shot.features(poisoned)},
            monkeypatch,
        )
        for poisoned in ("", "validation", "test", "foreign")
    }
    for poisoned in ("test", "foreign"):
        assert seen.differ(marks[""], marks[poisoned]) == set()
        assert made[poisoned] == made[""]
    assert seen.differ(marks[""], marks["validation"]) == {"caml"}


def run(function, tmp_path, stage="stage", /, **inputs):
    given = types.SimpleNamespace(**inputs)
    return function(StageContext(stage, tmp_path, Records(tmp_path), given))


def shown(tmp_path, patch, poisoned):
    """The stage's conditions; an image's features are its pixels' sum."""
    patch.setattr(conditions.Sight, "conditioner", lambda _: None)
    patch.setattr(conditions, "encoded", lambda *args: args[2].astype(int).sum((1, 2, 3)))
    patch.setattr(conditions, "conditions", lambda _, features, rows: {"sum": features[rows]})
    found = data(poisoned)
    return run(
        conditions._show,
        tmp_path,
        shown={"shot": 2, "pool": 0},
        draws={"train": 3, "validation": 3},
        sight=SIGHT,
        sets=list(found.images),
        classes=dict.fromkeys(found.images, 10),
        train=found.pictures("train"),
        validation={name: images.validation for name, images in found.images.items()},
    )


def test_supports_are_drawn_from_the_images_that_they_are_named_after(tmp_path, monkeypatch):
    known = {poisoned: shown(tmp_path, monkeypatch, poisoned) for poisoned in ("", *KINDS)}
    for kind in ("train", "validation"):
        for name, own in known[""][kind].items():
            changed = {
                poisoned
                for poisoned in KINDS
                if not np.array_equal(own["sum"], known[poisoned][kind][name]["sum"])
            }
            assert changed == {kind}, name
    assert set(known[""]["validation"]) == {*ZOOS, *UNSEEN}
    assert set(known[""]["train"]) == set(ZOOS)  # nothing is learned from a foreign set


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """(key, condition) of every draw of flow and DDPM, and the keys of the kernel density."""
    banks = {
        kind: {name: {"a": np.full((4, 1, 1), value)} for name in (*ZOOS, *UNSEEN)}
        for kind, value in (("train", 1.0), ("validation", 2.0))
    }
    banks["validation"]["latin"]["a"] = np.full((4, 1, 1), 3.0)
    given = {
        "conditions": StageResult("conditions", "", pathlib.Path(), banks, 0.0),
        "codec": types.SimpleNamespace(values={"means": dict.fromkeys(ZOOS, np.zeros((3, 1)))}),
        "generator": types.SimpleNamespace(values={"params": {}}),
        "velocity": None,
        "source": "gaussian",
        "sampling": {},
        "ddpm": types.SimpleNamespace(steps=1),
        "seed": 0,
        "samples": 3,
        "nearest": {name: ["latin"] for name in ZOOS},
        "bandwidth": 1.0,
    }
    found = []

    def of_flow(key, network, params, known, **_):
        found.append((key, known))
        return 0, 0

    def of_density(key, *_):
        found.append((key, None))

    space = types.SimpleNamespace(
        decode=lambda z, _: z, statistics=types.SimpleNamespace(apply=lambda z: z)
    )
    for name, value in (("latents_of", space), ("network_of", None), ("latent_shape", (1,))):
        monkeypatch.setattr(samples, name, lambda *_, value=value: value)
    monkeypatch.setattr(samples, "schedule", lambda _: None)
    monkeypatch.setattr(samples, "sample_flow", of_flow)
    monkeypatch.setattr(samples, "row_by_row", lambda one, key, known: found.append((key, known)))
    monkeypatch.setattr(samples, "from_density", of_density)
    for name in ("samples", "samples-beside", "samples-ddpm", "samples-kde"):
        kind = name.partition("-")[2]
        function = {"ddpm": samples._draw_ddpm, "kde": samples._draw_density}.get(
            kind, samples._draw_flow
        )
        run(function, tmp_path, name, **given)
    return found


def test_what_is_drawn_is_shown_images_that_nothing_was_learned_from(drawn):
    """The condition of a sample is the bank of `validation` images, of flow and DDPM alike."""
    conditions = [known["a"] for _, known in drawn if known is not None]
    expected = [3.0 if name == "latin" else 2.0 for name in 3 * ZOOS]
    assert [set(np.ravel(known)) for known in conditions] == [{value} for value in expected]
    assert {len(known) for known in conditions} == {3}


def test_no_two_rows_and_no_two_sets_share_their_draws(drawn):
    assert len(drawn) == 4 * len(ZOOS)
    assert len({str(jax.random.key_data(key)) for key, _ in drawn}) == len(drawn)


def tuned(tmp_path, patch, poisoned):
    """What the runs of Table 3 are trained on and choose by, and what they are measured on."""
    found, kept = data(poisoned), {}

    def train(context, spec, starts, tried, rates, images, **more):
        kept.update(starts=starts, tried=tried, rates=rates, images=images, **more)
        return np.ones(len(starts)), {}

    def measured(spec, runs, epochs, images, labels):
        kept["tested"] = (images, labels)
        return np.zeros((2, 2 * 3))

    patch.setattr(initialise, "train_with_rates", train)
    patch.setattr(initialise, "tuned_accuracy", measured)
    start = np.arange(3.0)[:, None] * np.ones(fields.spec_of("latin").size)
    patch.setattr(initialise, "_starts", lambda *_: ({"one": start, "two": start + 1}, []))
    part = {"images": 20, "epochs": (0, 1), "runs": 3, "rates": (1.0, 3.0), "tuned_at": 1}
    run(
        initialise._train,
        tmp_path,
        initialise=ConfigDict(part),
        name="latin",
        like=None,
        seed=0,
        split_seed=0,
        specs={"latin": fields.spec_of("latin")},
        recipe=ZooRecipe.of("latin", found.zoos["latin"].recipe),
        images={kind: getattr(found.images["latin"], kind) for kind in KINDS},
    )
    return kept


def averaged(tmp_path, patch, poisoned):
    """What the trained averages and random starts are trained on and choose by."""
    found, kept = data(poisoned), {}

    def train(context, spec, starts, images, **more):
        kept.update(images=images, **more)
        return starts

    patch.setattr(rivals, "train_starts", train)
    part = {"steps": 3, "batch": 2, "learning_rates": (0.1, 1.0), "tuned_on": 2}
    run(
        rivals._train,
        tmp_path,
        rivals=ConfigDict(part),
        seed=0,
        joint=found.joint,
        average={"latin": found.weights["latin"]},
        train=found.pictures("train"),
        validation=found.pictures("validation"),
        test=found.pictures("test"),
    )
    return kept


@pytest.mark.parametrize("of", [tuned, averaged])
def test_rates_are_chosen_on_validation_images(tmp_path, monkeypatch, of):
    whole = {poisoned: of(tmp_path, monkeypatch, poisoned) for poisoned in ("", *KINDS)}
    kept = {poisoned: kept.pop("images") for poisoned, kept in whole.items()}
    parts = {"images": "train", "labels": "train"}
    parts |= {"validation_images": "validation", "validation_labels": "validation"}
    assert set(parts) == {field.name for field in dataclasses.fields(Training)}
    for field, kind in parts.items():
        own = getattr(kept[""], field)
        changed = {p for p in KINDS if not np.array_equal(own, getattr(kept[p], field))}
        assert changed == {kind}, field
    if of is tuned:
        test = data().images["latin"].test
        np.testing.assert_array_equal(whole[""]["tested"][0], test.inputs)
        np.testing.assert_array_equal(whole[""]["tested"][1], test.labels)
        assert whole[""]["tested"][1].tolist() != whole["test"].pop("tested")[1].tolist()
        # The network that the rate is chosen with is none of those that are measured.
        tried, starts = (whole[""][part]["one"][:, 0].tolist() for part in ("tried", "starts"))
        assert len(tried) == 1 and len(starts) == 2 and not set(tried) & set(starts)
