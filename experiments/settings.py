"""Settings of few-shot tasks: how many classes, how many images of each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flown_jax.data.datasets import FewShotData
from flown_jax.errors import UserError

_FORM = re.compile(r"([1-9]\d*)-way ([1-9]\d*)-shot")


@dataclasses.dataclass(frozen=True)
class Setting:
    """n classes of k support images each.

    Attributes:
      way: n. shot: k.
    """

    way: int
    shot: int

    @property
    def name(self) -> str:
        """As in the config and in results."""
        return f"{self.way}-way {self.shot}-shot"

    @property
    def slug(self) -> str:
        """For the names of files."""
        return self.name.replace(" ", "-")

    def check(self, where: str, classes: int, images: int, query: int) -> None:
        """Refuse sets that are too small for tasks of this setting.

        Args:
          where: which set. classes: how many it has. images: in its smallest class.
          query: query images a class.
        Raises:
          UserError: too few classes or images.
        """
        if classes < self.way:
            raise UserError(f"{self.name} tasks need {self.way} classes; {where} are {classes}.")
        if images < self.shot + query:
            raise UserError(
                f"{self.name} tasks with {query} query images need {self.shot + query} images of "
                f"each class; the smallest of {where} has {images}."
            )


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
