"""The tiny config on little zoos: of states of one network, and of seeds."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.unconditional import get_config
from tests.experiments.reconstruct import little
from tests.experiments.walk import changed


def zoos(folder: Any) -> tuple[Any, Any]:
    """Folders of a zoo of states and of one of seeds."""
    return little.write(folder / "states", states=True), little.write(folder / "seeds")


def config(states: Any, seeds: Any, **values: Any) -> ConfigDict:
    """The tiny config on them, aligned and not; keys have __ for dots."""
    found = get_config("tiny").copy_and_resolve_references()
    found.unlock()
    found.targets = ConfigDict(
        {
            name: {
                "zoo": str(zoo),
                "variant": "none",
                "kind": kind,
                "align": align,
                "brief": False,
                "design": {},
            }
            for name, zoo, kind, align in (
                ("run", states, "states", False),
                ("seeds", seeds, "seeds", True),
            )
        }
    )
    found.held_out_every = 4
    found.rivals.averaged = 3
    found.trained_on.steps = (2, 4)
    found.evaluation.choice_images = 8
    found.evaluation.test_images.update(states=50, seeds=50)
    named = {name.replace("__", "."): value for name, value in values.items()}
    return changed(found, named)


def few(config: ConfigDict) -> ConfigDict:
    """Without the designs that take long to compile."""
    for kind in ("states", "seeds"):
        for name in ("kl", "graph"):
            if name in config[kind].beside:
                del config[kind].beside[name]
    return config
