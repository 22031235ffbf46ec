"""The tiny config on a little zoo, whose networks are adapted to Latin letters."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.adapt import get_config
from tests.experiments.reconstruct import little
from tests.experiments.walk import changed

SPEC = little.SPEC


def write(folder: Any) -> Any:
    """The zoo, in a folder."""
    return little.write(folder / "seeds")


def config(zoo: Any, **values: Any) -> ConfigDict:
    """The tiny config on it; keys have __ for dots."""
    found = get_config("tiny").copy_and_resolve_references()
    found.unlock()
    own = {"zoo": str(zoo), "variant": "none", "kind": "seeds", "align": True, "brief": False}
    own |= {"new": "latin", "margin": 0, "base": "", "base_of": "", "design": {}}
    found.targets = ConfigDict({"digits_latin": own})
    found.data.new_images = 40
    found.evaluation.choice_images = 8
    named = {name.replace("__", "."): value for name, value in values.items()}
    return changed(found, named)
