"""What experiments of many stages share: their time, and what runs beside each other share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flown_jax.training.fingerprints import digest
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, stage
from flown_jax.training.workdir import Workdir

Function = Callable[[StageContext], Mapping[str, Any]]


class Stages:
    """The stages of one run; a stage is computed once and then kept.

    Args:
      workdir: of the run.
      share: whether runs beside each other share what does not depend on the run.
    """

    def __init__(self, workdir: Workdir, *, share: bool = False) -> None:
        self.workdir = workdir
        self.shared: Path | None = workdir.path.parent / "shared" if share else None
        self.seconds = self.seconds_here = 0.0
        self._marks: dict[str, str] = {}

    def __call__(
        self, name: str, inputs: Mapping[str, Any], function: Function, *, version: int = 1
    ) -> StageResult:
        """A stage of this run; its time counts. Arguments as of `training.stages.stage`."""
        return self._run(self.workdir, name, inputs, function, None, version)

    def common(
        self, name: str, inputs: Mapping[str, Any], function: Function, *, version: int = 1
    ) -> StageResult:
        """A stage that the runs beside this one share."""
        return self._run(self.workdir, name, inputs, function, self.shared, version)

    def each(self, name: str, inputs: Mapping[str, Any], function: Function) -> StageResult:
        """A stage with a result for each of its inputs, side by side: other ones refuse nothing.

        It is no part of the fingerprint: what it gives reaches that by the stages that take it.
        """
        place = self.shared or self.workdir.path / "shared"
        return self.count(stage(self.workdir, name, inputs, function, place))

    def all_common(self) -> Stages:
        """These stages with every one shared; their time counts here."""
        return _Common(self)

    def count(self, result: StageResult) -> StageResult:
        """The same result; its time counts."""
        self.seconds += result.seconds
        self.seconds_here += 0.0 if result.reused else result.seconds
        return result

    def _run(self, workdir: Any, name: str, inputs: Any, function: Any, *more: Any) -> StageResult:
        shared, version = more
        result = stage(workdir, name, inputs, function, shared, version)
        self._marks[name] = result.fingerprint
        return self.count(result)

    @property
    def fingerprint(self) -> str:
        """Of all stages so far, and by their inputs of the data behind them."""
        return digest(self._marks)


class _Common(Stages):
    def __init__(self, stages: Stages) -> None:
        super().__init__(stages.workdir)
        self.shared, self._stages = stages.shared, stages

    def __call__(self, name: str, inputs: Any, function: Any, *, version: int = 1) -> StageResult:
        return self._stages.common(name, inputs, function, version=version)

    common = __call__


def recipe(part: ConfigDict) -> Recipe:
    """The recipe of a part of a config, its field `recipe`; a zero there means none."""
    values = part.recipe.to_dict()
    for name in ("clip", "ema_decay", "validate_every"):
        values[name] = values[name] or None
    return Recipe(**values)
