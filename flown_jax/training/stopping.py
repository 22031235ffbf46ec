"""A wish to stop, such as a scheduler's signal: trainings save what they have and end.

Whoever gets the wish (a signal handler) calls `request`; a training that has something to save
looks for it between its steps, saves, and raises `errors.Stopped`.

    with stopping.saving() as wish:
        ...
        wish.unsaved = True           # since the last checkpoint there is something to lose
        if wish.due():
            save()
            raise Stopped
"""

from __future__ import annotations

import contextlib
import threading
import time
import types
from collections.abc import Iterator

import numpy as np

from flown_jax.training.parallel import gather, process_count

_EVERY = 1.0  # seconds between two moments at which processes ask each other

_requested = threading.Event()
_state = types.SimpleNamespace(wish=None)


class Wish:
    """What a training knows of it.

    Attributes:
      unsaved: whether there is something to lose.
    """

    def __init__(self) -> None:
        self.unsaved = False
        self._left, self._steps, self._looked = 1, 0, time.monotonic()

    def due(self) -> bool:
        """Whether to save and end now; to be called after every step, by all processes alike.

        Processes ask each other about once a second, at the same step.
        """
        if process_count() == 1:
            return _requested.is_set()
        self._steps += 1
        self._left -= 1
        if self._left:
            return False
        now = time.monotonic()
        pace = (now - self._looked) / self._steps
        told = gather(np.asarray([[float(_requested.is_set()), pace]]))
        self._left = max(1, int(_EVERY / max(float(told[:, 1].max()), 1e-4)))
        self._steps, self._looked = 0, now
        return bool(told[:, 0].any())


@contextlib.contextmanager
def saving() -> Iterator[Wish]:
    """A context in which a training saves when a stop is wished for."""
    before, _state.wish = _state.wish, Wish()
    try:
        yield _state.wish
    finally:
        _state.wish = before


def request() -> bool:
    """Wish for a stop.

    Returns:
      Whether a training will save first; if not, there is nothing to wait for.
    """
    _requested.set()
    return _state.wish is not None and _state.wish.unsaved


def forget() -> None:
    """Take the wish back."""
    _requested.clear()
