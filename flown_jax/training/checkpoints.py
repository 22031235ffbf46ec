"""Training checkpoints through orbax, verified before anything is read from them.

A checkpoint is orbax's folder STEP and, written last, a record STEP.json of what it holds:
the shape and type of every leaf and the checksum of every file. A step without a record was
never finished and does not exist. The record is compared first, since orbax casts another
type silently, does not name the leaf whose shape differs, and may read damaged bytes as data.

Of several processes process 0 writes, since each has a replica of the state; all read, so that the
folder must lie on a disk that all see. Nothing in a checkpoint depends on the number of devices.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import read_json, sha256_of, write_json, writing
from flown_jax.training.parallel import agree, gather, lead, process_index
from flown_jax.training.trees import load_tree, save_tree

__all__ = ["Checkpoints", "load_tree", "save_tree"]

PyTree = Any
_FORMAT = 1
_MARK = "checkpoints.json"
_ITEM = "leaves"


class Checkpoints:
    """The checkpoints of one run in a folder of their own.

    Args:
      directory: the folder; made at the first save.
      max_to_keep: how many checkpoints stay, at least 2: one is whole while the next is written.
    Raises:
      UserError: the folder holds something else.
    """

    def __init__(self, directory: str | Path, *, max_to_keep: int = 2) -> None:
        if max_to_keep < 2:
            raise ValueError(f"max_to_keep must be at least 2, not {max_to_keep}")
        self.directory = Path(directory).absolute()
        self._max_to_keep = max_to_keep
        lead(self._refuse_foreign)

    def _refuse_foreign(self) -> None:
        with writing(self.directory):
            found = self.directory.exists() and any(self.directory.iterdir())
        if found and not (self.directory / _MARK).exists():
            raise UserError(f"{self.directory} holds files that are not checkpoints of flown_jax")

    def save(self, step: int, tree: PyTree) -> None:
        """Write a checkpoint; when this returns, it is whole and on the disk.

        Newer ones, which a run that is at this step did not go on from, are removed.

        Args:
          step: number of finished steps.
          tree: pytree of arrays and numbers.
        Raises:
          UserError: the disk is full or the folder forbidden; earlier checkpoints stay.
        """
        arrays = {name: np.array(leaf) for name, leaf in _named(tree).items()}
        lead(lambda: self._write(step, arrays))

    def _write(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        from orbax.checkpoint import args

        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_json(self.directory / _MARK, {"format": _FORMAT})
            self._remove_unfinished(step)
            with self._manager() as manager:
                # Arrays of size zero, which orbax refuses, are made again from the record.
                filled = {name: array for name, array in arrays.items() if array.size}
                manager.save(step, args=args.StandardSave({_ITEM: filled}), force=True)
                manager.wait_until_finished()
            record = {
                "format": _FORMAT,
                "leaves": {n: [a.dtype.name, list(a.shape)] for n, a in arrays.items()},
                "files": {name: sha256_of(path) for name, path in self._files(step).items()},
            }
            write_json(self._record(step), record)
            for other in self.directory.glob("[0-9]*.json"):
                if not (self.directory / other.stem).is_dir():
                    other.unlink()

    def latest(self) -> int | None:
        """The last finished step, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def steps(self) -> list[int]:
        """All finished steps that are kept, in order."""
        if not self.directory.is_dir():
            return []
        names = [p.stem for p in self.directory.glob("[0-9]*.json") if p.stem.isdigit()]
        return sorted(int(name) for name in names if (self.directory / name).is_dir())

    def restore(self, step: int, like: PyTree) -> PyTree:
        """The tree of a checkpoint.

        Args:
          step: one of `steps()`.
          like: a tree of the expected structure, shapes and types; leaves may be abstract.
        Returns:
          A tree like `like`: JAX arrays where it has JAX or abstract arrays, NumPy arrays where
          it has those, numbers where it has numbers.
        Raises:
          UserError: no such step, a leaf differs (named), or the checkpoint is damaged.
        """
        if step not in self.steps():
            raise UserError(f"{self.directory} has no finished checkpoint of step {step}")
        return self._read(step, like)

    def restore_latest(
        self, like: PyTree, tell: Callable[[str], None] | None = None
    ) -> tuple[int, PyTree] | None:
        """The newest checkpoint that is whole and its step; None where nothing was saved.

        Args:
          like: as in `restore`.
          tell: is given a sentence for each that is passed over.
        Raises:
          UserError: there are checkpoints and none of them can be used; it is that of the newest.
        """
        tell = tell or (lambda sentence: None)
        first: UserError | None = None
        for name in agree(self._without_record()):
            tell(
                f"checkpoint {self.directory / name} was never finished (no {name}.json): not used"
            )
        for step in agree(self.steps()[::-1]):
            try:
                tree, sentence = self._read(step, like), ""
            except UserError as error:
                first, tree, sentence = first or error, None, str(error)
            if gather(np.asarray([not sentence])).all():
                return step, tree
            tell(f"{sentence or 'another process cannot read it'}; trying the one before it")
        if first is not None:
            raise first
        return None

    def _read(self, step: int, like: PyTree) -> PyTree:
        from orbax.checkpoint import args

        folder = self.directory / str(step)
        damaged = f"checkpoint {folder} is damaged (remove it to go on from an earlier one)"
        record = read_json(self._record(step), damaged)
        try:
            stored = {
                name: (kind, tuple(shape)) for name, (kind, shape) in record["leaves"].items()
            }
            checksums = dict(record["files"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{damaged}: {self._record(step).name} is not its record") from error
        _compare(stored, _named(like), folder)
        present = self._files(step)
        for name, checksum in checksums.items():
            if name not in present or sha256_of(present[name]) != checksum:
                raise UserError(f"{damaged}: {name} has changed since it was written")
        try:
            with self._manager(reading=True) as manager:
                arrays = manager.restore(step, args=args.StandardRestore())[_ITEM]
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise UserError(f"{damaged}: it cannot be read") from error

        def leaf(name: str, expected: Any) -> Any:
            kind, shape = stored[name]
            array = arrays.get(name) if name in arrays else np.zeros(shape, jnp.dtype(kind))
            return _as(expected, np.asarray(array))

        leaves = [leaf(name, expected) for name, expected in _named(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    @contextlib.contextmanager
    def _manager(self, reading: bool = False) -> Iterator[Any]:
        """Orbax's, of this process alone."""
        from orbax import checkpoint
        from orbax.checkpoint.options import MultiprocessingOptions

        index = process_index()
        alone = MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"of{index}"
        )
        options = checkpoint.CheckpointManagerOptions(
            max_to_keep=None if reading else self._max_to_keep,
            save_interval_steps=0 if reading else 1,
            read_only=reading,
            create=False,
            multiprocessing_options=alone,
        )
        with _quiet():
            manager = checkpoint.CheckpointManager(self.directory, options=options)
            try:
                yield manager
            finally:
                # After a failed write, closing repeats the failure that is already told.
                with contextlib.suppress(ValueError, OSError):
                    manager.close()

    def _remove_unfinished(self, step: int) -> None:
        """Clear the way: what is not from before this step, and whatever was never finished."""
        for kept in self.steps():
            if kept >= step:
                self._record(kept).unlink(missing_ok=True)
        self._record(step).unlink(missing_ok=True)
        finished = {str(kept) for kept in self.steps()}
        for path in self.directory.iterdir():
            if path.is_dir() and path.name.split(".")[0].isdigit() and path.name not in finished:
                shutil.rmtree(path)

    def _without_record(self) -> list[str]:
        """Names of folders of steps that were never finished."""
        if not self.directory.is_dir():
            return []
        there = [path.name for path in self.directory.iterdir() if path.name.isdigit()]
        return sorted(name for name in there if not (self.directory / f"{name}.json").exists())

    def _record(self, step: int) -> Path:
        return self.directory / f"{step}.json"

    def _files(self, step: int) -> dict[str, Path]:
        folder = self.directory / str(step)
        return {
            str(path.relative_to(folder)): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def _named(tree: PyTree) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two leaves of the tree have one name: keys must not hold '/'")
    return named


def _compare(
    stored: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, Any], folder: Path
) -> None:
    for name in stored:
        if name not in expected:
            raise UserError(f"checkpoint {folder} holds {name}, which this run does not have")
    for name, leaf in expected.items():
        if name not in stored:
            raise UserError(f"checkpoint {folder} does not hold {name}, which this run has")
        kind = np.asarray(leaf).dtype.name if not hasattr(leaf, "dtype") else leaf.dtype.name
        shape = tuple(np.shape(leaf))
        if stored[name] != (kind, shape):
            was, shape_was = stored[name]
            raise UserError(
                f"checkpoint {folder} does not fit this run: {name} is stored as "
                f"{was} {shape_was} and expected as {kind} {shape}"
            )


def _as(expected: Any, array: np.ndarray) -> Any:
    if isinstance(expected, np.ndarray | np.generic):
        return array
    if isinstance(expected, bool | int | float | complex):
        return array.item()
    # A copy: a donated buffer must not be NumPy's memory.
    return jnp.array(array)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own accounts of a failure off the screen; ours is one sentence."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
