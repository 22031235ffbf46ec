"""The experiment on prepared colour images: several settings of one meta-model, sets too small."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from configs import fsl
from experiments.features import describe_images
from experiments.stages import Stages
from flown_jax import MetaModel
from flown_jax.errors import UserError
from flown_jax.training.stages import plain_values
from flown_jax.training.workdir import Workdir
from tests.experiments import prepared
from tests.parity.fixtures import ROOT

# The ResNet-12 takes no less, after the augmentation.
SIDE = 20
SETTINGS = ("5-way 1-shot", "7-way 2-shot")
# The variant's networks, smaller still: compilation is what takes the time.
OVERRIDES = {
    "encoder.side": SIDE,
    "tasks.settings": SETTINGS,
    "tasks.shots": (1, 2),
    "tasks.train": 60,
    "tasks.validation": 10,
    "tasks.test": 10,
    "probe.steps": 5,
    "probe.lengths": (8.0,),
    "ridge.l2": (10.0,),
    "logistic.inverse_penalties": (0.1,),
    "targets.temperatures": (1.0,),
    "targets.base_scales": (1.0,),
    "caml.base_weights": (1.0,),
    "sampling.samples": 2,
    "sampling.top": 2,
    "sampling.curve_samples": 2,
    "sampling.temperatures": (1.0,),
    "sampling.nfe_curve": (1,),
    "sampling.steps": 2,
    "ddpm.steps": 2,
}
UNET = {
    "velocity.sizes.channel_mult": (1,),
    "velocity.sizes.num_res_blocks": 0,
    "velocity.sizes.model_channels": 8,
    "velocity.sizes.embedding_dim": 16,
    "codec.sizes.latent_shape": (4, 4, 2),
    "codec.sizes.hidden_dim": 16,
}
FLAT = ("flat_unet",)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a small `mini_imagenet` and `cifar10`."""
    folder = tmp_path_factory.mktemp("sets")
    prepared.write(folder, "mini_imagenet", SIDE, {"train": 8, "validation": 8, "test": 8})
    prepared.write(folder, "cifar10", 12, {"train": 1, "test": 7})
    return folder


def images_of(sets, workdir, **tasks):
    """The first stage of a run on these sets."""
    config = fsl.get_config("mini_imagenet_tiny")
    config.data.update(data_dir=str(sets), images_per_class=0, foreign=("cifar10",))
    config.tasks.update({"shots": (1,), **tasks})
    with Workdir(workdir, plain_values(config)) as work:
        return describe_images(Stages(work), config.data, config.tasks)


def test_every_setting_is_measured_on_every_set_with_one_meta_model(sets, tmp_path):
    flat = {f"beside.{name}.{field}": value for name in FLAT for field, value in UNET.items()}
    data = {"data_dir": str(sets), "images_per_class": 0, "foreign": ("cifar10", "stl10")}
    fields = OVERRIDES | flat | {f"data.{name}": value for name, value in data.items()}
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.fewshot", f"--workdir={workdir}"]
    command += ["--config=configs/fsl.py:mini_imagenet_tiny"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stl10 is not on this disk and is left out" in done.stdout
    assert f"{SETTINGS[0]} ({SETTINGS[1]} in results.md);" in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert results["absent"] == ["stl10"] and list(results["titles"]) == [
        "in_distribution",
        "cifar10",
    ]
    found = {(row["table"], row["set"], row["method"]) for row in results["rows"]}
    everywhere = {"flown_ensemble", "caml_and_base", "logistic_regression", "vae_reconstruction"}
    everywhere |= {"regression", "ddpm_ensemble", "cosine_class_mean", "linear_probe"}
    assert {(s, t, m) for s in SETTINGS for t in results["titles"] for m in everywhere} <= found
    # Flat latents are those of five classes.
    for name in FLAT:
        of_design = {key[:2] for key in found if key[2] == f"{name}_ensemble"}
        assert of_design == {(SETTINGS[0], name) for name in results["titles"]}
    assert all(np.isfinite(row["value"]) and row["n"] == 10 for row in results["rows"])
    chosen = results["chosen_on_validation"]
    assert set(chosen["flow"]) == set(chosen["baselines"]) == set(SETTINGS)
    assert set(chosen["heads"]["base_scale"]) == {"1", "2"}
    text = (workdir / "results.md").read_text()
    for setting in SETTINGS:
        assert f"## {setting}: paired differences of `flown_ensemble`" in text
        assert f"## {setting}. Out of distribution: CIFAR-10" in text
    assert "Not on the disk: stl10." in text
    model = MetaModel.restore(workdir)
    assert model.any_way and model.image_shape == (SIDE, SIDE, 3)
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 30, 3), dtype=np.uint8)
    networks = model.generate(images, ["a", "b", "c", "a", "b", "c"], samples=2)
    assert networks.predict(images).shape == (6, 3)


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        (
            {"settings": ("5-way 1-shot", "18-way 1-shot")},
            "18-way 1-shot tasks need 18 classes; the validation classes of mini_imagenet are 16.",
        ),
        (
            {"settings": ("12-way 1-shot",)},
            "12-way 1-shot tasks need 12 classes; the classes of cifar10 are 10.",
        ),
        (
            {"settings": ("5-way 3-shot",)},
            "5-way 3-shot tasks with 5 query images need 8 images of each class; the smallest "
            "of the classes of cifar10 has 7.",
        ),
        (
            {"settings": ("5-way 1-shot",), "shots": (1, 4)},
            "5-way 4-shot tasks with 5 query images need 9 images of each class; the smallest "
            "of the train classes of mini_imagenet has 8.",
        ),
    ],
)
def test_sets_that_are_too_small_are_told_before_anything_is_trained(
    sets, tmp_path, tasks, sentence
):
    with pytest.raises(UserError) as told:
        images_of(sets, tmp_path / "run", **tasks)
    assert str(told.value) == sentence
