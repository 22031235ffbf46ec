"""Image encoders of an experiment: what runs share of them, and what is refused."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from configs import fsl
from experiments import features
from experiments.stages import Stages
from flown_jax.errors import UserError
from flown_jax.training.stages import plain_values
from flown_jax.training.workdir import Workdir
from tests.experiments.fewshot.configs import GLYPHS, changed


def trained(context, module, images, recipe, *, seed, augmentation):
    """What a backbone would be trained to, at once: every number tells its seed."""
    image = np.zeros((1, *images.shape[2:]), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, seed, leaf.dtype), shapes)
    assert "classifier" in variables["params"]
    return {"variables": variables, "train_accuracy": 0.5}


class Remembered(Stages):
    """Stages that keep what was shared."""

    def common(self, name, *arguments, **options):
        self.shared_result = super().common(name, *arguments, **options)
        return self.shared_result

    def each(self, *arguments):
        self.looked = super().each(*arguments)
        return self.looked


def marks_of(backbone):
    """The numbers that its parameters are made of."""
    return {float(x) for a in jax.tree.leaves(backbone.values["variables"]) for x in a.flat}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of runs, and begun(name, ...): a run's stages, its images and its backbone."""
    folder = tmp_path_factory.mktemp("runs")

    def begin(name, **fields):
        config = changed("tiny", **{**GLYPHS, **fields})
        with Workdir(folder / name, plain_values(config)) as work:
            stages = Remembered(work, share=config.share)
            data = features.describe_images(stages, config.data, config.tasks)
            encoder, accuracy = features.train_encoder(stages, config, data)
        assert encoder.kind == "resnet12" and accuracy == 0.5
        return stages, data, stages.shared_result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "train_backbone", trained)
        yield folder, begin


def test_runs_of_other_seeds_share_nothing_unless_a_part_has_a_seed_of_its_own(begun):
    folder, begin = begun
    _, _, backbone = begin("seed0")
    assert backbone.path.parent == folder / "shared" and not backbone.reused
    written = (backbone.path / "stage.json").stat().st_mtime_ns
    _, _, other = begin("seed1", seed=1)
    assert other.path != backbone.path and not other.reused
    assert marks_of(other) == {1}
    # With one of its own the second run takes what the first one trained, and no time for it.
    stages, data, same = begin("seed2", seed=2, backbone__seed=0)
    assert same.reused and same.path == backbone.path
    assert (backbone.path / "stage.json").stat().st_mtime_ns == written
    assert stages.looked.reused  # images are drawn once, too
    seconds = stages.looked.seconds + data.seconds + same.seconds
    assert stages.seconds == pytest.approx(seconds)
    assert stages.seconds_here == pytest.approx(data.seconds)
    assert marks_of(same) == {0}
    assert "classifier" not in same.values["variables"]["params"]


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
        stages = Stages(work)
    with pytest.raises(UserError, match=sentence):
        features.train_encoder(stages, config, None)


IMAGES = {"classes": "aa", "foreign": {}, "absent": []}


def test_images_whose_files_have_changed_are_looked_at_again(tmp_path, monkeypatch):
    """Without a read while the files are as they were; other images are refused."""
    found, read = {**IMAGES}, []

    def describe(context):
        read.append(context.name)
        return dict(found)

    # A stage's function sees its inputs alone: no closure.
    monkeypatch.setattr(features, "_describe", types.FunctionType(_code, {"describe": describe}))
    file = tmp_path / "sets" / "mini_imagenet" / "1.0.0" / "train"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    config = fsl.get_config("mini_imagenet_tiny")
    config.data.update(data_dir=str(tmp_path / "sets"), foreign=("cifar10",))

    def begin(share, name="run"):
        with Workdir(tmp_path / name, {}) as work:
            stages = Stages(work, share=share)
            return features.describe_images(stages, config.data, config.tasks)

    for share, name in ((True, "run"), (False, "alone")):
        read.clear()
        found["classes"] = "aa"
        first = begin(share, name)
        assert begin(share, name).fingerprint == first.fingerprint and len(read) == 1
        file.write_bytes(b"one")  # touched, and the same
        assert begin(share, name).reused and len(read) == 2
        file.write_bytes(b"two")
        found["classes"] = "bb"
        with pytest.raises(UserError, match='stage data .* finished with images.classes = "aa"'):
            begin(share, name)
    # A foreign set that came onto the disk later is one of other images.
    found |= {"classes": "aa", "foreign": {"cifar10": "cc"}}
    (tmp_path / "sets" / "cifar10").mkdir()
    (tmp_path / "sets" / "cifar10" / "test").write_bytes(b"three")
    with pytest.raises(UserError, match="no images.foreign.cifar10"):
        begin(True)


def _call(context):
    return describe(context)  # noqa: F821


_code = _call.__code__
