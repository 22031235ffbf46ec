"""The training loop: batches by index, checkpoints, and a stop before anything is spoilt."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.errors import Stopped, UserError
from flown_jax.training import paces, stopping
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.parallel import agree
from flown_jax.training.records import Records, Update
from flown_jax.training.state import TrainState

PyTree = Any
# Steps between two looks at the losses where nothing else asks for one.
_BLOCK = 100


class Diverged(UserError):
    """A run that cannot go on: its loss, gradient or parameters are not finite.

    Attributes:
      best: the state that scored highest before, as `fit` would return it; None if none was scored.
    """

    def __init__(self, sentence: str, best: TrainState | None) -> None:
        super().__init__(sentence)
        self.best = best


def fit(
    state: TrainState,
    step: Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Any]]],
    batch_at: Callable[[int], PyTree],
    *,
    steps: int,
    name: str,
    records: Records | None = None,
    checkpoints: Checkpoints | None = None,
    save_every: int | None = None,
    log_every: int | None = None,
    validate: Callable[[TrainState], float] | None = None,
    validate_every: int | None = None,
    batch: int | None = None,
) -> TrainState:
    """The state after `steps` steps, or the best one on the way if there is a validation.

    A run that was stopped at any moment goes on from its last checkpoint and ends bit for bit
    where an uninterrupted one ends, since batches and keys depend on the step's index alone. One
    that is wished to stop (`stopping`) saves first. Steps are dispatched without waiting for their
    results; losses are looked at in blocks.

    Args:
      state: where to start if there is no checkpoint; it stays valid.
      step: `parallel.compile_step(...)`, or any function (state, batch) -> (state, metrics).
      batch_at: batch of the i-th step, i from 0; a pure function of i.
      steps: number of steps in all, those of earlier runs included.
      name: name of the stage in records and messages.
      records: where metrics (means since the last line) and progress go.
      checkpoints: where to save and resume; the last step is saved too.
      save_every, log_every, validate_every: intervals in steps; None for never (a validation
        still runs after the last step).
      validate: score of a state, higher is better, from data that is neither trained nor tested
        on; the returned state holds the params, ema_params and extra with the highest score.
      batch: examples a step, where the pace is to be told with it.
    Raises:
      Diverged: loss, gradient or parameters are not finite; the last good checkpoint stays.
      Stopped: a stop was wished for; what was done is saved.
    """
    place = getattr(step, "place", _copy)
    collect = getattr(step, "collect", _copy)
    best = _Best(state) if validate is not None else None
    start = int(state.step)
    if checkpoints is not None:
        tell = records.note if records is not None else None
        if (found := checkpoints.restore_latest(_pack(state, best), tell)) is not None:
            start, tree = found
            state, best = _unpack(tree, best)
    if start > steps:
        raise UserError(f"{name} has {start} steps behind it, more than the {steps} asked for")
    if records is not None:
        records.rewind(name, start)

    current = place(state)
    window = _Window(name, start, checkpoints, keep=records is not None and log_every is not None)
    window.best = lambda: None if best is None or best.step < 0 else best.apply(state)
    sizes: dict[str, Any] = {
        "batch": batch,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "footprint": lambda: getattr(step, "footprint", None),
    }
    shown = (
        records.progress(name, steps, start, timed=True, **sizes)
        if records is not None
        else _silence()
    )
    with shown as update, stopping.saving() as wish:
        for index in range(start, steps):
            examples = batch_at(index)
            if index == start and paces.measuring() and hasattr(step, "plan"):
                step.plan(current, examples)
            current, metrics = step(current, examples)
            window.add(metrics)
            done = index + 1
            wish.unsaved = checkpoints is not None
            stop = wish.due()
            validating = validate is not None and _due(validate_every, done, steps, last=True)
            saving = checkpoints is not None and _due(save_every, done, steps, last=True)
            logging = window.keep and _due(log_every, done, steps, last=True)
            if logging or validating or saving or stop or done == steps or done % _BLOCK == 0:
                window.check()
            elif index == start and paces.measuring():
                window.check()  # its compilation is in no other step's time
            if logging and records is not None:
                means = window.means()
                records.log(name, done, means)
                update(done, {"loss": means["loss"]})
            else:
                update(done)
            if not (validating or saving or stop):
                continue
            state = collect(current)
            window.check_kept(state, done)
            if validate is not None and best is not None and validating:
                score = agree(float(validate(state)))
                best.offer(score, state)
                if records is not None:
                    records.log(name, done, {"validation": score})
                    update(done, {"validation": score})
            if checkpoints is not None and (saving or stop):
                checkpoints.save(done, _pack(state, best))
                wish.unsaved = False
            if stop:
                raise Stopped
    state = collect(current)
    window.check_kept(state, steps)
    return state if best is None else best.apply(state)


class _Best:
    """What scored highest; a part of the checkpoint, so that a resumed run does not forget it."""

    def __init__(self, state: TrainState) -> None:
        self.score = -math.inf
        self.step = -1
        self.parts = self._parts(state)

    def offer(self, score: float, state: TrainState) -> None:
        if score > self.score:
            self.score, self.step, self.parts = score, int(state.step), self._parts(state)

    def apply(self, state: TrainState) -> TrainState:
        return state if self.step < 0 else dataclasses.replace(state, **self.parts)

    def tree(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step, "parts": self.parts}

    @staticmethod
    def _parts(state: TrainState) -> dict[str, PyTree]:
        return {"params": state.params, "ema_params": state.ema_params, "extra": state.extra}


class _Window:
    """Metrics since the last log line, left on the device until somebody looks."""

    def __init__(self, name: str, start: int, checkpoints: Checkpoints | None, keep: bool) -> None:
        self.keep = keep
        self._checkpoints = checkpoints
        self._name = name
        self._step = start
        self._pending: list[dict[str, Any]] = []
        self._seen: list[dict[str, float]] = []
        self.best: Callable[[], TrainState | None] = lambda: None

    def add(self, metrics: dict[str, Any]) -> None:
        self._pending.append(metrics)

    def check(self) -> None:
        """Wait for all steps so far and raise if one of them went wrong."""
        for metrics in jax.device_get(self._pending):
            self._step += 1
            for key in ("loss", "grad_norm"):
                if key in metrics and not np.isfinite(metrics[key]):
                    what = "" if key == "loss" else f", gradient norm {float(metrics[key])}"
                    raise self.stop(self._step, f"the loss is {float(metrics['loss'])}{what}")
            if self.keep:
                self._seen.append(metrics)
        self._pending = []

    def check_kept(self, state: TrainState, step: int) -> None:
        """Look at what is about to be kept: a finite loss may come with broken parameters."""
        # On the host, where no program is compiled for each shape; what is kept goes there anyway.
        for leaf in jax.device_get(jax.tree.leaves((state.params, state.ema_params, state.extra))):
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all():
                raise self.stop(step, "the parameters are not finite")

    def stop(self, step: int, reason: str) -> Diverged:
        """The sentence of a run that cannot go on."""
        saved = None if self._checkpoints is None else self._checkpoints.latest()
        kept = "nothing was saved" if saved is None else f"the checkpoint of step {saved} is kept"
        sentence = f"{self._name} stopped at step {step}: {reason}; {kept}"
        return Diverged(sentence, self.best())

    def means(self) -> dict[str, float]:
        """Means over the window, which starts anew."""
        seen, self._seen = self._seen, []
        return {key: float(np.mean([metrics[key] for metrics in seen])) for key in seen[0]}


def _pack(state: TrainState, best: _Best | None) -> dict[str, Any]:
    return {"state": state} if best is None else {"state": state, "best": best.tree()}


def _unpack(tree: dict[str, Any], best: _Best | None) -> tuple[TrainState, _Best | None]:
    if best is not None:
        found = tree["best"]
        best.score, best.step, best.parts = found["score"], found["step"], found["parts"]
    return tree["state"], best


def _due(every: int | None, done: int, steps: int, last: bool) -> bool:
    return (last and done == steps) or (every is not None and done % every == 0)


def _copy(state: TrainState) -> TrainState:
    # The step may use its argument's buffers up.
    return jax.tree.map(jnp.array, state)


@contextlib.contextmanager
def _silence() -> Iterator[Update]:
    yield lambda step, metrics=None: None
