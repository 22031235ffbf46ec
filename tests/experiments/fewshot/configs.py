"""Few-shot configs with other values, for the tests that train nothing."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import fsl

# The least that has every class set.
GLYPHS = {
    "data__train_classes": 6,
    "data__validation_classes": 6,
    "data__images_per_class": 8,
    "data__alike": 0.4,
    "tasks__train": 4,
    "tasks__validation": 4,
    "tasks__test": 4,
}


def changed(variant: str = "tiny", **fields: Any) -> ConfigDict:
    """A config with `a__b=value` put into config.a.b."""
    config = fsl.get_config(variant)
    for name, value in fields.items():
        part = config
        *groups, last = name.split("__")
        for group in groups:
            part = part[group]
        part[last] = value
    return config
