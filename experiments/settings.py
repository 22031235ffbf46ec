"""Settings of few-shot tasks: how many classes, how many images of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.fields import check_at_most
from flown_jax.data.datasets import FewShotData
from flown_jax.data.episodes import Setting
from flown_jax.errors import UserError

_FORM = re.compile(r"([1-9]\d*)-way ([1-9]\d*)-shot")


def settings(texts: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of a config's `tasks.settings`, the main one first.

    Raises:
      UserError: a text that is no setting, or none at all, or one twice.
    """
    found = []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise UserError(f"tasks.settings has {text!r}; it wants texts like '5-way 1-shot'.")
        found.append(Setting(int(match[1]), int(match[2])))
    if not found or len(set(found)) < len(found):
        raise UserError("tasks.settings must name at least one setting, and none of them twice.")
    return tuple(found)


def check_tasks(config: ConfigDict, where: str = "") -> None:
    """What `tasks` of a config and its CAML can be told apart from their images.

    Args:
      config: with checked fields. where: the dotted name of the group that they lie in, or "".
    Raises:
      UserError: the first thing that does not fit.
    """
    part = config[where] if where else config
    prefix = f"{where}." if where else ""
    settings(part.tasks.settings)
    shots, way, named = tuple(part.tasks.shots), part.tasks.way, part.caml.num_classes
    if list(shots) != sorted(set(shots)):
        raise UserError(f"{prefix}tasks.shots is {shots}; it must be ascending numbers from 1.")
    if way > named:
        raise UserError(
            f"{prefix}tasks.way is {way}, and CAML has names for {named} classes: set "
            f"{prefix}caml.num_classes."
        )
    if part.tasks.train < len(shots):
        raise UserError(
            f"{prefix}tasks.train is {part.tasks.train}; it must be a task for each of "
            f"{prefix}tasks.shots, {shots}, at least."
        )
    wanted, there = max(*shots, part.targets.shots) + part.tasks.query, part.data.images_per_class
    if 0 < there < wanted:
        raise UserError(
            f"{prefix}data.images_per_class is {there}; training tasks, with {prefix}tasks.shots, "
            f"{prefix}targets.shots and {prefix}tasks.query, need {wanted} images of each class."
        )
    width, heads = part.backbone.channels[-1] + part.caml.label_dim, part.caml.num_heads
    if part.encoder.kind == "trained" and width % heads:
        raise UserError(
            f"{prefix}caml.num_heads is {heads}; it must divide the last of "
            f"{prefix}backbone.channels and {prefix}caml.label_dim together, {width}."
        )
    for field in ("tasks.train_query", "caml.query"):
        check_at_most(config, prefix + field, f"{prefix}tasks.query")


def check_sizes(images: FewShotData, name: str, tasks: Mapping[str, Any]) -> None:
    """Every setting finds its classes and images, before anything is trained.

    Args:
      name: of the image set. tasks: `settings`, `way`, `shots` and `query`.
    Raises:
      UserError: it does not.
    """
    parts = {
        f"the {split} classes of {name}": [images.classes.images[c] for c in ids]
        for split, ids in images.split.items()
    }
    parts |= {f"the classes of {name}": list(part.images) for name, part in images.foreign.items()}
    trained = [Setting(tasks["way"], shot) for shot in tasks["shots"]]
    for where, classes in parts.items():
        smallest = min(len(part) for part in classes)
        for setting in trained if where.startswith("the train") else settings(tasks["settings"]):
            setting.check(where, len(classes), smallest, tasks["query"])
