"""From raw files to a prepared image set: find, read, check, write, read back.

The set is written into a hidden folder beside its place and moved there whole at the end, so that
an interrupted conversion leaves nothing that could be taken for a set; the next one clears it
away. `flown_jax.json` beside dataset_info.json keeps where the images came from.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flown_jax.data import array_record, checks
from flown_jax.data.catalogue import CATALOGUE, EMBEDDED, Facts, facts
from flown_jax.data.formats import (
    Raw,
    RawSplit,
    cifar,
    class_folders,
    idx,
    mini_imagenet,
    npz,
    sheets,
    stl10,
    svhn,
    usps,
)
from flown_jax.data.image_sets import local_folder
from flown_jax.errors import UserError
from flown_jax.files import read_json, sha256_of, write_json, writing

ORIGIN = "flown_jax.json"
# The official forms before copies of them.
_FORMATS = (idx, cifar, stl10, svhn, usps, mini_imagenet, npz, sheets, class_folders)
_LOOKED_FOR = {
    **dict.fromkeys(idx.SETS, "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"),
    "usps": "usps[.bz2] and usps.t[.bz2], zip.train[.gz] and zip.test[.gz], or usps.h5",
    "svhn_cropped": "train_32x32.mat and test_32x32.mat",
    "cifar10": "cifar-10-python.tar.gz, cifar-10-binary.tar.gz or the files in them",
    "cifar100": "cifar-100-python.tar.gz, cifar-100-binary.tar.gz or the files in them",
    "stl10": "stl10_binary.tar.gz or the files in it",
    "mini_imagenet": "{train,val,test}.csv and JPEGs, mini-imagenet-cache-{train,val,test}.pkl",
}


@dataclass(frozen=True)
class Report:
    """What a conversion found and wrote.

    Attributes:
      name: of the image set.
      folder: where it is.
      written: False if it was there already.
      what: the raw format; files: how many were read.
      counts: images and official images of each split.
      notes: differences from the official set, files that were not used.
    """

    name: str
    folder: Path
    written: bool
    what: str
    files: int
    counts: dict[str, tuple[int, int]]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report in lines."""
        found = f"{self.what}, {self.files:,} file{'s' if self.files != 1 else ''}"
        head = "wrote" if self.written else "is there already (--overwrite makes it anew):"
        return [
            f"{self.name}: found {found}" if self.written else f"{self.name}: from {found}",
            *(
                f"  {split}: {count:,} of {official:,} official images"
                for split, (count, official) in self.counts.items()
            ),
            *(f"  note: {note}" for note in self.notes),
            f"  {head} {self.folder}",
        ]


def prepare(
    name: str, source: str | Path, data_dir: str | Path, *, overwrite: bool = False
) -> Report:
    """Convert the raw files of an image set into data_dir/NAME/VERSION.

    Args:
      name: of the set.
      source: folder of the raw files.
      data_dir: folder of the prepared sets.
      overwrite: replace a set that is there.
    Raises:
      UserError: an unknown set, missing, damaged or foreign raw files, a folder in the way,
        another conversion of the same set at work.
    """
    official = facts(name)
    if name in EMBEDDED:
        raise UserError(f"{name} is part of the library; it needs no preparation.")
    source, data_dir = local_folder(source), local_folder(data_dir)
    target = data_dir / name / official.version
    with _usable(target):
        if target.exists() and not overwrite:
            return _existing(name, target)
        if target.parent.is_file():
            raise UserError(f"{target.parent} is a file, where a folder is wanted.")
    with _usable(source):
        if not source.is_dir():
            raise UserError(
                f"there is no folder {source}; --from names the folder of the raw files."
            )
        raw, unused = _find(name, source)
    checks.require_splits(official, raw)
    with _workplace(target) as place:
        # Another conversion may have ended since.
        if target.exists() and not overwrite:
            return _existing(name, target)
        shapes: dict[str, tuple[int, int]] = {}
        samples: dict[str, tuple[list[int], np.ndarray, np.ndarray]] = {}

        def checked(split: str) -> Callable[[], RawSplit]:
            def decode() -> RawSplit:
                part = known.pop(split, None) or raw.splits[split]()
                checks.check_split(official, split, part, shapes)
                rows = sorted({0, len(part.labels) // 2, len(part.labels) - 1})
                samples[split] = (rows, part.images[rows], part.labels[rows])
                return part

            return decode

        # The side must be known before the first image is written.
        first = next(iter(raw.splits))
        known = {first: raw.splits[first]()}
        checks.refuse_another_set(name, raw)
        side = known[first].images.shape[1]
        folder = array_record.write(
            place,
            official,
            {split: checked(split) for split in raw.splits},
            side=side,
            class_names=raw.class_names or official.class_names,
            description=f"{name}, converted from {raw.what} by flown_jax.",
        )
        written = {split: (shapes[split][0], official.counts[split]) for split in raw.splits}
        _read_back(folder, written, samples)
        notes = (*checks.differences(official, raw, written, side), *raw.notes, *unused)
        _write_origin(folder, official, raw, written, side, notes)
        with _usable(target):
            if target.exists():
                os.replace(target, place / "old")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, target)
    return Report(name, target, True, raw.what, len(raw.files), written, notes)


def _find(name: str, source: Path) -> tuple[Raw, tuple[str, ...]]:
    """The first format that is whole, and notes on what else is there."""
    whole: list[Raw] = []
    refused: list[UserError] = []
    for form in _FORMATS:
        try:
            raw = form.find(name, source)
        except UserError as error:
            refused.append(error)
            continue
        if raw is not None:
            whole.append(raw)
    if not whole and refused:
        raise refused[0]
    if not whole:
        raise UserError(
            f"{source} has no raw files of {name}: {_LOOKED_FOR[name]}, {name}.npz or folders "
            "SPLIT/CLASS of images are looked for."
        )
    unused = [f"not used: {raw.what} ({raw.files[0].name})" for raw in whole[1:]]
    unused += [f"refused: {error}" for error in refused]
    return whole[0], tuple(unused)


def _read_back(
    folder: Path,
    written: dict[str, tuple[int, int]],
    samples: dict[str, tuple[list[int], np.ndarray, np.ndarray]],
) -> None:
    """Raises UserError unless the written set has all images, and the same."""
    stored = array_record.counts(folder)
    expected = {split: count for split, (count, _) in written.items()}
    if stored != expected:
        raise UserError(f"{folder} has {stored} images after writing, not {expected}.")
    for split, (rows, images, labels) in samples.items():
        read, read_labels = array_record.read_some(folder, split, rows)
        if not np.array_equal(np.stack(read), images) or read_labels != labels.tolist():
            raise UserError(f"{folder} has other images in {split} than were written.")


def _write_origin(
    folder: Path,
    official: Facts,
    raw: Raw,
    written: dict[str, tuple[int, int]],
    side: int,
    notes: tuple[str, ...],
) -> None:
    parts = {"train", "test"} | set(written)
    value = {
        "format": 1,
        "set": official.name,
        "source": raw.what,
        "files": len(raw.files),
        "sha256": _hashes(raw.files),
        "splits": {s: {"images": n, "official": m} for s, (n, m) in written.items()},
        "side": side,
        "official_side": official.side,
        "official_counts_and_side": side == official.side
        and all(written.get(s, (0, 0))[0] == official.counts[s] for s in parts),
        "notes": list(notes),
    }
    with writing(folder):
        write_json(folder / ORIGIN, value)


def _hashes(files: tuple[Path, ...]) -> dict[str, str]:
    """Hash of each file, or of the list of hashes where there are very many files."""
    hashes = {str(path): sha256_of(path) for path in files}
    if len(hashes) <= 100:
        return {Path(path).name: value for path, value in hashes.items()}
    root = os.path.commonpath(hashes)
    lines = "".join(f"{os.path.relpath(path, root)} {value}\n" for path, value in hashes.items())
    return {f"{len(hashes)} files": hashlib.sha256(lines.encode()).hexdigest()}


def _existing(name: str, target: Path) -> Report:
    """The report on a set that is there."""
    if not (target / array_record.INFO).is_file():
        raise UserError(
            f"{target} exists and is no finished image set; remove it or give --overwrite."
        )
    stored = array_record.counts(target)
    official = CATALOGUE[name].counts
    counts = {split: (count, official.get(split, count)) for split, count in stored.items()}
    if not (target / ORIGIN).is_file():
        return Report(name, target, False, "TensorFlow Datasets", len(stored), counts, ())
    origin = read_json(target / ORIGIN, f"the image set in {target}")
    try:
        source, files, notes = origin["source"], int(origin["files"]), origin["notes"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the image set in {target} is damaged: {ORIGIN} lacks fields.") from error
    return Report(name, target, False, str(source), files, counts, tuple(map(str, notes)))


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """A context in which an error of the disk, be it a name that is too long, is one sentence."""
    try:
        with writing(path):
            yield
    except OSError as error:
        place = error.filename or path
        raise UserError(f"cannot use {place}: {(error.strerror or str(error)).lower()}.") from error


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """An empty hidden folder beside the sets that no other process uses; removed at the end."""
    data_dir, name = target.parent.parent, target.parent.name
    place = data_dir / f".{name}.unfinished"
    with _usable(place):
        lock = _locked(place, f"another conversion of {name} into {data_dir} is at work.")
        try:
            # A kill between the two moves of a replacement left the old set here.
            if (place / "old").exists() and not target.exists():
                os.replace(place / "old", target)
            _empty(place)
            try:
                yield place
            finally:
                _empty(place)
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(lock)


def _locked(place: Path, taken: str) -> int:
    """The descriptor of the folder's lock, which is this process's alone.

    Raises:
      UserError: another one has it.
    """
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(place / "lock", os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:
            continue  # another conversion ended and removed the folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock that its holder has removed meanwhile keeps nobody out.
            if os.path.samestat(os.fstat(lock), os.stat(place / "lock")):
                return lock
        except BlockingIOError as error:
            os.close(lock)
            raise UserError(taken) from error
        except FileNotFoundError:
            pass
        os.close(lock)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
