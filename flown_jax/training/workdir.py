"""The folder of a run: config.json, environment.json, metrics.jsonl and stages/."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from flown_jax.errors import UserError
from flown_jax.files import write_json, writing
from flown_jax.training.parallel import lead, leads
from flown_jax.training.records import Records, environment

# Made first, so that its presence says whose folder this is.
_LOCK = ".flown_jax.lock"


class Workdir:
    """A run's folder, locked against a second run for as long as it is open.

    Use as a context. config.json is written when the folder is new, and again when a run with
    another config comes to its end: a run that a stage refuses leaves the old one. Of several
    processes, process 0 has the lock and writes.

    Args:
      path: the folder; made if absent.
      config: the whole configuration, JSON values.
      tensorboard, stream: see `records.Records`.
      wait: whether to wait for another run that uses the folder, which this one then goes on from.
    Raises:
      UserError: the folder is used by another run, holds foreign files, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        tensorboard: bool = False,
        stream: TextIO | None = None,
        wait: bool = False,
    ) -> None:
        self.path = Path(path)
        self._config = config
        self._lock = -1
        lead(lambda: self._open(wait, stream))
        try:
            self.records = Records(self.path, tensorboard=tensorboard, stream=stream)
        except BaseException:
            self._release()
            raise

    def _open(self, wait: bool, stream: TextIO | None) -> None:
        with writing(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"{self.path} is a file: choose a new --workdir")
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:
                raise UserError(f"the folder {self.path} cannot be made") from error
            # One look: another run may be making the folder at this moment.
            if (there := os.listdir(self.path)) and _LOCK not in there:
                raise UserError(
                    f"{self.path} is not empty and was not made by flown_jax: "
                    "choose a new --workdir"
                )
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._enter(wait, stream)
            with writing(self.path):
                if not (self.path / "config.json").exists():
                    write_json(self.path / "config.json", self._config)
                write_json(self.path / "environment.json", environment())
        except BaseException:
            self._release()
            raise

    def _enter(self, wait: bool, stream: TextIO | None) -> None:
        """Take the lock."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise UserError(f"another run is using {self.path}: wait for it to end") from error
            text = f"another run is using {self.path}; waiting for it"
            print(text, file=stream or sys.stderr, flush=True)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> Workdir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and leads():
            with writing(self.path):
                write_json(self.path / "config.json", self._config)
        self.close()

    def close(self) -> None:
        """Close the records and let the next run in; closing twice does nothing."""
        self.records.close()
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
