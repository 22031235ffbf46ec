"""What experiments of many stages share: their time, and what runs beside each other share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flown_jax.training.stages import StageResult, stage
from flown_jax.training.workdir import Workdir


class Stages:
    """The stages of one run; a stage is computed once and then kept.

    Args:
      config: with `share`, whether runs beside each other share results.
      workdir: of the run.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.shared: Path | None = workdir.path.parent / "shared" if config.share else None
        self.seconds = self.seconds_here = 0.0

    def stage(self, name: str, inputs: dict[str, Any], function: Any, **where: Any) -> StageResult:
        """A stage of this run; its time counts."""
        result = stage(self.workdir, name, inputs, function, **where)
        self.seconds += result.seconds
        self.seconds_here += 0.0 if result.reused else result.seconds
        return result

    def common(self, name: str, inputs: dict[str, Any], function: Any) -> StageResult:
        """A stage that the runs beside this one share."""
        return self.stage(name, inputs, function, shared=self.shared)
