"""What a few-shot config may say: settings, shots, encoders; what runs share; nothing trained."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import fsl
from experiments import fewshot_stages
from experiments.fewshot_check import check
from experiments.fewshot_settings import Setting, settings
from experiments.fewshot_stages import FewShot
from flown_jax.errors import UserError
from flown_jax.training.stages import plain_values
from flown_jax.training.workdir import Workdir


def changed(variant="tiny", **fields):
    """A config with `a__b=value` put into config.a.b."""
    config = fsl.get_config(variant)
    for name, value in fields.items():
        part = config
        *groups, last = name.split("__")
        for group in groups:
            part = part[group]
        part[last] = value
    return config


def test_settings_are_read_in_their_order():
    config = changed(tasks__settings=("5-way 1-shot", "10-way 5-shot", "20-way 12-shot"))
    assert settings(config) == (Setting(5, 1), Setting(10, 5), Setting(20, 12))
    assert [s.name for s in settings(config)] == list(config.tasks.settings)
    assert Setting(10, 5).slug == "10-way-5-shot"


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (("5-way",), "tasks.settings has '5-way'; it wants texts like '5-way 1-shot'"),
        (("5-way 0-shot",), "'5-way 0-shot'"),
        (("5-way 1-shot ",), "'5-way 1-shot '"),
        (("05-way 1-shot",), "'05-way 1-shot'"),
        (("5-way 1-shot", "5-way 1-shot"), "none of them twice"),
        ((), "at least one setting"),
    ],
)
def test_other_texts_are_no_settings(texts, sentence):
    with pytest.raises(UserError, match=sentence):
        settings(changed(tasks__settings=texts))


def test_sets_that_are_too_small_for_a_setting_are_named():
    Setting(5, 1).check("the test classes", classes=5, images=6, query=5)
    with pytest.raises(UserError, match=r"5-way 1-shot tasks need 5 classes; the cows are 4\."):
        Setting(5, 1).check("the cows", classes=4, images=600, query=5)
    sentence = (
        "5-way 5-shot tasks with 15 query images need 20 images of each class; the smallest "
        r"of the cows has 19\."
    )
    with pytest.raises(UserError, match=sentence):
        Setting(5, 5).check("the cows", classes=10, images=19, query=15)


VARIANTS = ("default", "tiny", "unet", "mini_imagenet", "mini_imagenet_tiny", "paper")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_fits_together(variant):
    check(fsl.get_config(variant))


@pytest.mark.parametrize(
    ("variant", "fields", "sentence"),
    [
        (
            "unet",
            {"tasks__settings": ("5-way 1-shot", "10-way 1-shot")},
            "tasks.settings has '10-way 1-shot', and this meta-model makes heads of 5 classes",
        ),
        (
            "tiny",
            {"tasks__settings": ("2-way 1-shot",), "condition__entries": ("features", "caml")},
            "tasks.settings has '2-way 1-shot'.* a condition without CAML",
        ),
        ("tiny", {"tasks__way": 12}, "tasks.way is 12, and CAML has names for 10 classes"),
        ("tiny", {"tasks__shots": ()}, r"tasks.shots is \(\); it must be ascending"),
        ("tiny", {"tasks__shots": (5, 1)}, r"tasks.shots is \(5, 1\)"),
        ("tiny", {"tasks__shots": (1, 1)}, r"tasks.shots is \(1, 1\)"),
        ("tiny", {"targets__kind": "svm"}, "targets.kind is 'svm'; it must be 'adamw' or 'lda'"),
        (
            "mini_imagenet",
            {"beside__flat_unet__velocity__kind": "token_transformer"},
            "velocity.kind 'token_transformer' takes latents of 2 axes",
        ),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_trained(variant, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        check(changed(variant, **fields))


GLYPHS = {
    "data__train_classes": 6,
    "data__validation_classes": 6,
    "data__images_per_class": 8,
    "data__alike": 0.4,
    "tasks__train": 4,
    "tasks__validation": 4,
    "tasks__test": 4,
}


def trained(context, module, images, recipe, *, seed, augmentation):
    """What a backbone would be trained to, at once: it tells its seed."""
    layers = {"layer1": np.full(3, seed), "classifier": np.ones((4, len(images)))}
    return {"variables": {"params": layers, "batch_stats": {}}, "train_accuracy": 0.5}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of runs, and begun(name, ...): a run's job, its images and its backbone."""
    folder = tmp_path_factory.mktemp("runs")

    def begin(name, **fields):
        config = changed("tiny", **{**GLYPHS, **fields})
        with Workdir(folder / name, plain_values(config)) as work:
            job = FewShot(config, work)
            data = job.data()
            return job, data, job._backbone(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fewshot_stages, "train_backbone", trained)
        yield folder, begin


def test_runs_of_other_seeds_share_nothing_unless_a_part_has_a_seed_of_its_own(begun):
    folder, begin = begun
    _, _, backbone = begin("seed0")
    assert backbone.path.parent == folder / "shared" and not backbone.reused
    written = (backbone.path / "stage.json").stat().st_mtime_ns
    _, _, other = begin("seed1", seed=1)
    assert other.path != backbone.path and not other.reused
    np.testing.assert_array_equal(other.values["variables"]["params"]["layer1"], 1)
    # With one of its own the second run takes what the first one trained, and no time for it.
    job, data, same = begin("seed2", seed=2, backbone__seed=0)
    assert same.reused and same.path == backbone.path
    assert (backbone.path / "stage.json").stat().st_mtime_ns == written
    assert job.seconds == pytest.approx(data.seconds + same.seconds)
    assert job.seconds_here == pytest.approx(data.seconds)
    params = same.values["variables"]["params"]
    np.testing.assert_array_equal(params["layer1"], 0)
    assert "classifier" not in params


def test_tasks_are_those_of_their_own_seed(begun, monkeypatch):
    folder, begin = begun
    _, data, _ = begin("seed0")
    # A table is a function of its key and sizes; drawing it would only take time.
    monkeypatch.setattr(
        fewshot_stages,
        "draw_tasks",
        lambda key, features, ids, **sizes: (jax.random.key_data(key).tolist(), len(ids), sizes),
    )
    rng = np.random.default_rng(0)
    raw = {
        name: [rng.normal(size=(8, 4)).astype(np.float32) for _ in range(count)]
        for name, count in {
            "classes": len(data.values["class_names"]),
            "out_of_distribution": 10,
        }.items()
    }

    class Encoder:
        @staticmethod
        def fingerprint():
            return "same"

    def tables(**fields):
        config = changed("tiny", **{**GLYPHS, **fields})
        with Workdir(folder / "tables", plain_values(config)) as work:
            return FewShot(config, work).tables(data, Encoder(), raw)

    own, again, other = tables(), tables(seed=3, tasks__seed=0), tables(seed=3)
    assert own.fingerprint == again.fingerprint != other.fingerprint
    assert (own.train, own.validation, own.test) == (again.train, again.validation, again.test)
    (setting,) = own.validation
    assert setting == Setting(5, 1) and set(own.test) == {"in_distribution", "out_of_distribution"}
    drawn = [own.train[1], own.validation[setting], *(part[setting] for part in own.test.values())]
    assert len({str(key) for key, *_ in drawn}) == 4
    assert own.train[1] != other.train[1]
    # More test tasks are other tasks to measure on, and nothing else to learn from.
    more = tables(tasks__test=5)
    assert more.learned_from == own.learned_from and more.fingerprint != own.fingerprint
    # Another setting behind the first one leaves the tasks of the first as they were.
    two = tables(tasks__settings=("5-way 1-shot", "3-way 2-shot"))
    assert two.validation[setting] == own.validation[setting]
    assert two.validation[Setting(3, 2)][0] != own.validation[setting][0]


def test_a_run_may_keep_everything_to_itself(tmp_path):
    config = changed("tiny", share=False)
    with Workdir(tmp_path / "run", plain_values(config)) as work:
        result = FewShot(config, work).common("thing", {}, lambda _: {"a": np.ones(1)})
    assert result.path == tmp_path / "run" / "stages" / "thing"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"encoder__kind": "resnet50"}, "kind is 'resnet50'; it must be one of resnet12"),
        ({"encoder__kind": "vit", "encoder__weights": "no/such.safetensors"}, "no/such"),
        (
            {"encoder__kind": "function", "encoder__function": "no.such:thing"},
            "no.such:thing cannot be imported",
        ),
        ({"encoder__kind": "function"}, "named 'package.module:function', not ''"),
    ],
)
def test_an_encoder_that_is_not_there_is_one_sentence(tmp_path, fields, sentence):
    config = changed("tiny", **fields)
    with Workdir(tmp_path / "run", plain_values(config)) as work:
        job = FewShot(config, work)
    with pytest.raises(UserError, match=sentence):
        job.encoder(None)
