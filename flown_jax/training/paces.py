"""How fast trainings go, and what memory the process has taken by their end.

    with paces.measured() as found:
        ...                          # whatever trains, in any folder
    found[0].step_seconds

Nothing is trained for it: `Records.progress` tells each step that has been done, and JAX the time
that it compiled.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax

from flown_jax.training.parallel import Footprint, peak_device_memory_gib

_COMPILING = "/jax/core/compile/"  # tracing, lowering and compiling
# The list of whoever measures, and what is told of it.
_ACTIVE: contextvars.ContextVar[Any] = contextvars.ContextVar("paces", default=None)
# Spans (start, end) of compilation while somebody measures; JAX keeps a listener for good.
_state = types.SimpleNamespace(listening=False, spans=None)


@dataclasses.dataclass(frozen=True)
class Pace:
    """A training that has come to its end, or as far as it got.

    Attributes:
      name: as its progress is shown under.
      steps: that were taken here.
      step_seconds: of a step without compilation: the mean of all after the first, which places the
        data, too; of the first where there is one alone. NaN without any.
      compile_seconds: tracing, lowering and compiling meanwhile.
      batch: examples a step. parameters: that are trained. None where the training does not tell.
      memory_gib: largest resident memory of the process so far.
      device_memory_gib: largest memory in use of a device so far; None where it does not tell.
      footprint: the memory of a step as its compiler plans it; None where no step was compiled
        for whole batches, as for networks that are trained side by side.
    """

    name: str
    steps: int
    step_seconds: float
    compile_seconds: float
    batch: int | None
    parameters: int | None
    memory_gib: float
    device_memory_gib: float | None
    footprint: Footprint | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, rounded; null for no number."""
        return {name: _rounded(value) for name, value in dataclasses.asdict(self).items()}


@contextlib.contextmanager
def measured(tell: Callable[[list[Pace]], Any] | None = None) -> Iterator[list[Pace]]:
    """A context whose value is a list that every training adds itself to at its end.

    Args:
      tell: given the list each time, so that a process that is killed has told what came before.
    """
    _listen()
    found: list[Pace] = []
    token, spans = _ACTIVE.set((found, tell)), _state.spans
    _state.spans = []
    try:
        yield found
    finally:
        _ACTIVE.reset(token)
        _state.spans = spans


def measuring() -> bool:
    """Whether anybody measures."""
    return _ACTIVE.get() is not None


class Stopwatch:
    """The time of one training's steps.

    Args:
      name: of the training. start: step from which it goes on.
      batch, parameters: as in `Pace`.
      footprint: gives what `Pace` has, at the end.
    """

    def __init__(
        self,
        name: str,
        start: int,
        batch: int | None = None,
        parameters: int | None = None,
        footprint: Callable[[], Footprint | None] = lambda: None,
    ) -> None:
        self._name, self._sizes, self._footprint = name, (batch, parameters), footprint
        self._begun = time.time()
        self._first: tuple[int, float] | None = None
        self._start, self._last = start, (start, self._begun)

    def see(self, step: int) -> None:
        """A step was done."""
        self._last = (step, time.time())
        if self._first is None:
            self._first = self._last

    def stop(self, memory_gib: float) -> None:
        """Add the pace to whoever measures; nothing where nobody does.

        Args:
          memory_gib: largest resident memory of the process so far.
        """
        if (active := _ACTIVE.get()) is None:
            return
        found, tell = active
        since, began = (self._start, self._begun)
        if self._first is not None and self._last[0] > self._first[0]:
            since, began = self._first
        steps, (last, ended) = self._last[0] - since, self._last
        seconds = ended - began - compiled(began, ended)
        batch, parameters = self._sizes
        found.append(
            Pace(
                self._name,
                last - self._start,
                max(seconds, 0.0) / steps if steps else math.nan,
                compiled(self._begun, time.time()),
                batch,
                parameters,
                memory_gib,
                peak_device_memory_gib(),
                self._footprint(),
            )
        )
        if tell is not None:
            tell(found)


def compiled(start: float, end: float) -> float:
    """Seconds between two times in which JAX compiled, while somebody measures."""
    total = 0.0
    for first, last in sorted(_state.spans or ()):
        first, last = max(first, start), min(last, end)
        if last > first:  # spans lie in one another: a program is traced while another one is
            total, start = total + last - first, last
    return total


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _listen() -> None:
    if _state.listening:
        return

    def heard(event: str, duration_secs: float, **more: str | int) -> None:
        del more
        if _state.spans is not None and event.startswith(_COMPILING):
            now = time.time()
            _state.spans.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(heard)
    _state.listening = True
