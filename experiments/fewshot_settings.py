"""Settings of few-shot tasks: how many classes, how many images of each."""

from __future__ import annotations

import dataclasses
import re

from ml_collections import ConfigDict

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


def settings(config: ConfigDict) -> tuple[Setting, ...]:
    """The settings of a config, the main one first.

    Raises:
      UserError: a text that is no setting, or none at all, or one twice.
    """
    texts = tuple(config.tasks.settings)
    found = []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise UserError(f"tasks.settings has {text!r}; it wants texts like '5-way 1-shot'.")
        found.append(Setting(int(match[1]), int(match[2])))
    if not found or len(set(found)) < len(found):
        raise UserError("tasks.settings must name at least one setting, and none of them twice.")
    return tuple(found)
