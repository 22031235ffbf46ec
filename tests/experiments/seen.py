"""Which stages see a thing themselves: another value of it, and whose inputs are others?

The stages are those of `walk.Walk`, not computed. A stage's result stands here by its name, so that
what a stage learned from a thing does not count as seeing it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments import stages
from tests.experiments import walk


class _Direct(walk.Walk):
    def __call__(self, workdir, name, inputs, function, shared=None, version=1):
        result = super().__call__(workdir, name, inputs, function, shared, version)
        return dataclasses.replace(result, fingerprint=name)


def marks(
    compute: Callable[[], Any], values: walk.Values, patch: Any, module: Any = stages
) -> dict[str, str]:
    """Stage -> fingerprint of its own inputs.

    Args:
      compute: the command's stages. values, patch, module: as in `walk.walked`.
    """
    recorded = _Direct(values)
    patch.setattr(module, "stage", recorded)
    if hasattr(module, "write_once"):
        patch.setattr(module, "write_once", recorded.write_once)
    compute()
    return recorded.marks


def differ(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Stages whose inputs are others."""
    assert one.keys() == other.keys()
    return {name for name, mark in one.items() if other[name] != mark}
