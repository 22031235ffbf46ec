"""Every field of the few-shot configs reaches a stage's fingerprint, or is known to do nothing."""

from __future__ import annotations

import functools
import pathlib
import re
import types

import jax
import numpy as np
import pytest

from configs.fsl import get_config
from experiments import tasks
from experiments.fewshot import __main__ as command
from flown_jax.data.episodes import Episodes
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.models.resnet12 import ResNet12
from tests.experiments import walk

COUNT = 12  # classes of a split
# What a changed value of these is, where a number more or a letter more will not do.
OTHERS = {
    "tasks.settings": {"tasks.settings": ("5-way 2-shot",)},
    "encoder.kind": {"encoder.kind": "function", "encoder.function": f"{__name__}:pixels"},
    "tasks.train": {"tasks.train": 400},
    "backbone.seed": {"backbone.seed": 7},  # -1 is the run's, which is 0
    "tasks.seed": {"tasks.seed": 7},
    "encoder.mean": {"encoder.mean": (0.5,), "encoder.std": (1.0,)},
    "encoder.std": {"encoder.mean": (0.0,), "encoder.std": (0.5,)},
    "targets.base_scales": {"targets.base_scales": ()},
    **walk.GRAPH_NAMES,
}
# No stage's result depends on these.
SILENT = {
    "variant": "a name for folders and titles",
    "share": "where results lie",
    "tensorboard": "what is written beside them",
    "encoder.weights": "a file that another kind of encoder reads; its tensors are fingerprinted",
    "encoder.function": "of another kind of encoder; it is part of that one's description",
}


def pixels(images):
    return images.reshape(len(images), -1)


def data(inputs):
    """Three splits of classes of grey images."""
    ids = np.arange(3 * COUNT).reshape(3, COUNT)
    split = dict(zip(("train", "validation", "test"), ids, strict=True))
    foreign = {"elsewhere": "b" * 64}
    titles = {"in_distribution": "in", "elsewhere": "out"}
    return {
        "classes": "a" * 64,
        "class_names": [str(i) for i in range(3 * COUNT)],
        "image_shape": [28, 28, 1],
        "split": split,
        "foreign": foreign,
        "titles": titles,
        "absent": [],
    }


@functools.cache
def features(classes):
    rng = np.random.default_rng(classes)
    return {
        "features": rng.normal(size=(classes * 30, 8)).astype(np.float32),
        "counts": [30] * classes,
    }


@functools.cache
def backbone(channels):
    module = ResNet12(channels=channels)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    return {
        "variables": jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes),
        "train_accuracy": 1.0,
    }


VALUES = {
    "data": data,
    "backbone": lambda inputs: backbone(tuple(inputs["backbone"].channels)),
    "features-classes": lambda inputs: features(3 * COUNT),
    "features-*": lambda inputs: features(COUNT),
    "baselines": lambda inputs: {
        name: {"length": 1.0, "l2": 1.0, "inverse_penalty": 1.0} for name in inputs["validation"]
    },
    "heads": lambda inputs: {
        "chosen": {"target_temperature": {str(shot): 1.0 for shot in inputs["train"]}}
    },
    "model": lambda inputs: {
        "chosen": {name: {"temperature": 1.0} for name in inputs["validation"]}
    },
    "evaluation-*": lambda inputs: {
        "rows": [],
        "nfe": {"flown": 1, "ddpm": 1},
        "sampling_temperatures": {},
    },
}


def draw_tasks(key, features, class_ids, *, way, shot, query, count, target_shots=None):
    """Tasks as the library's, without a compiled program for each shape."""
    rng, fitted = np.random.default_rng(np.asarray(jax.random.key_data(key))), target_shots or shot
    classes = np.stack([rng.permutation(class_ids)[:way] for _ in range(count)])
    images = rng.permuted(np.broadcast_to(np.arange(30), (count, way, 30)), axis=-1)
    targets, asked = images[..., :fitted], images[..., fitted : fitted + query]
    return TaskTable(features, Episodes(classes, targets[..., :shot], asked), targets)


@pytest.mark.parametrize(
    ("variant", "kind", "encoder", "groups", "more"),
    [
        (
            "tiny",
            "lda",
            "vae",
            ("",),
            {"targets.shrinkage": "of heads of the kind 'lda', which have it"},
        ),
        # What the other has as well goes the same ways.
        (
            "mini_imagenet_tiny",
            "adamw",
            "vae",
            ("beside.", "data.", "tasks.", "targets.", "probe."),
            {},
        ),
        ("tiny", "lda", "graph", ("codec.",), {}),
    ],
)
def test_every_field_changes_a_stage(variant, kind, encoder, groups, more, tmp_path, monkeypatch):
    config = walk.changed(get_config(variant), {"codec.encoder": encoder})
    config.flow.ensemble.recipe.steps = 1  # else nothing of it would count
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "contact_sheet.png").touch()
    monkeypatch.setattr(command, "write", lambda *_: None)
    monkeypatch.setattr(tasks, "draw_tasks", draw_tasks)
    work = types.SimpleNamespace(path=pathlib.Path(tmp_path))
    others = {**OTHERS, "targets.kind": {"targets.kind": kind}}

    def compute(config):
        command.compute(config, work)

    found = walk.walked(config, compute, VALUES, others, monkeypatch, groups=groups)
    silent = {field for field, stage in found.items() if stage is None}
    without_steps = {field for field in silent if re.search(r"beside\..*\.ensemble\.", field)}
    of_graphs = set(walk.graph_fields(config)) if encoder == "vae" else set()
    known = {*SILENT, *more, *of_graphs}
    assert silent - without_steps == known & set(found)
    assert "refused" not in found.values()
