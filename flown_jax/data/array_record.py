"""Folders of TensorFlow Datasets in array_record form, written and read without TensorFlow.

A folder NAME/VERSION holds dataset_info.json, features.json and NAME-SPLIT.array_record-* files;
images are PNG bytes, in the order of the raw files. TensorFlow Datasets opens such a folder as its
own. Folders in its default form, TFRecord, are read where TensorFlow is installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.data.catalogue import Facts
from flown_jax.data.formats import RawSplit, damaged
from flown_jax.errors import UserError
from flown_jax.files import read_json, writing

INFO = "dataset_info.json"
_FORM = "array_record"
_CHUNK = 4096  # records parsed at a time
_MOST_CLASSES = 10**5
# TensorFlow Datasets imports whatever module features.json names; these are its own.
_FEATURES = "tensorflow_datasets.core.features."


def write(
    data_dir: Path,
    official: Facts,
    splits: Mapping[str, Callable[[], RawSplit]],
    *,
    side: int,
    class_names: tuple[str, ...],
    description: str,
) -> Path:
    """The folder data_dir/NAME/VERSION, written.

    Args:
      data_dir: folder to write into; must be on a local disk.
      official: name, version, channels and further features of the set.
      splits: what yields the images (N, side, side, channels) and labels of each split; called
        one after another.
      side: of the images, pixels.
      class_names: name of each label.
      description: written into dataset_info.json.
    Raises:
      UserError: the disk is full or forbidden, or `splits` raised one.
    """
    import tensorflow_datasets as tfds

    # The builder reports on both outputs; this library's commands have their own report.
    tfds.disable_progress_bar()
    with writing(data_dir), contextlib.redirect_stdout(io.StringIO()):
        builder = _builder_class()(data_dir, official, splits, side, class_names, description)
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # of the C++ writer; its text has the system's error
            raise ValueError(str(error)) from error
    return Path(builder.data_dir)


def counts(folder: Path) -> dict[str, int]:
    """Number of images of each split, as dataset_info.json has it.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        info = _info(folder)
        return {
            split["name"]: sum(int(length) for length in split["shardLengths"])
            for split in info["splits"]
        }
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the image set in {folder} is damaged: {INFO} lists no splits.") from error


def _info(folder: Path) -> dict[str, Any]:
    info = read_json(folder / INFO, f"the image set in {folder}")
    if not isinstance(info, dict):
        raise UserError(f"the image set in {folder} is damaged: {INFO} holds no fields.")
    return info


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 (N, H, W, C), labels int32 (N,) and class names (empty if not stored).

    Raises:
      UserError: no such split, a damaged file, a description that names code or files of elsewhere,
        or TFRecord form without TensorFlow.
    """
    form = _info(folder).get("fileFormat", "tfrecord")
    known = counts(folder)
    if split not in known:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(known)}.")
    if form == _FORM:
        return _read_records(folder, split, known[split])
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{folder} is in the form {form!r}, which only TensorFlow reads: install tensorflow, "
            "or make the set anew in array_record form, from its raw files with `python -m "
            "experiments.prepare_data` or, where TensorFlow is installed, with "
            "`tfds.builder(NAME, file_format='array_record').download_and_prepare()`."
        )
    return _read_with_tensorflow(folder, split, known[split])


def read_some(folder: Path, split: str, indices: list[int]) -> tuple[list[np.ndarray], list[int]]:
    """Images (H, W, C) and labels of a few records of an array_record folder, read back."""
    rows = _source(folder, split)[1].__getitems__(indices)
    return [_decode(row["image"]) for row in rows], [int(row["label"]) for row in rows]


def _source(folder: Path, split: str) -> tuple[Any, Any]:
    """The set's info and its records, with images as they are stored."""
    import tensorflow_datasets as tfds

    _check_description(folder)
    builder = tfds.builder_from_directory(os.fspath(folder))
    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.info, builder.as_data_source(split, decoders=decoders)


def _check_description(folder: Path) -> None:
    """Raises UserError if a folder's JSON names code, or files of other folders."""
    what = f"the image set in {folder}"
    for name in (INFO, "features.json"):
        if not (folder / name).is_file():
            raise UserError(f"{what} is damaged: it has no {name}.")
        for field, value in _fields(read_json(folder / name, what)):
            if name != INFO and field in ("pythonclassname", "type"):
                if not str(value).startswith(_FEATURES):
                    raise UserError(
                        f"{what} asks for {str(value)[:200]}, which is not of TensorFlow Datasets; "
                        "loading it would run code of the folder's choosing, and it is not read."
                    )
            elif field in ("filepathtemplate", "name", "features", "version", "configname"):
                names = value if isinstance(value, dict) else [str(value)]
                if any("/" in entry or "\\" in entry for entry in names):
                    raise UserError(f"{what} names files outside of its folder in {name}.")


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every name of nested JSON, in small letters without underscores, and what stands there."""
    for name, entry in value.items() if isinstance(value, dict) else ():
        yield str(name).replace("_", "").lower(), entry
    for entry in value.values() if isinstance(value, dict) else value:
        if isinstance(entry, dict | list):
            yield from _fields(entry)


def _read_records(folder: Path, split: str, count: int) -> tuple[Any, Any, Any]:
    try:
        info, source = _source(folder, split)
        if count > sum(path.stat().st_size for path in folder.iterdir()):
            raise ValueError(f"{INFO} promises {count:,} images")
        labels = np.empty(count, np.int32)
        images: np.ndarray | None = None
        for start in range(0, count, _CHUNK):
            rows = source.__getitems__(list(range(start, min(start + _CHUNK, count))))
            for index, row in enumerate(rows, start):
                image = _decode(row["image"])
                if images is None:
                    images = np.empty((count, *image.shape), np.uint8)
                images[index], labels[index] = image, row["label"]
    except UserError:
        raise
    except Exception as error:  # array_record and its C++ readers raise nearly anything
        raise damaged(folder, error) from error
    if images is None:
        raise UserError(f"{folder} has no images in split {split!r}.")
    return images, labels, _class_names(info)


def _read_with_tensorflow(folder: Path, split: str, count: int) -> tuple[Any, Any, Any]:
    import tensorflow_datasets as tfds

    _check_description(folder)
    builder = tfds.builder_from_directory(os.fspath(folder))
    # One file after another keeps the order of the files.
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    rows = tfds.as_numpy(builder.as_dataset(split=split, read_config=config))
    images: np.ndarray | None = None
    labels = np.empty(count, np.int32)
    for index, row in enumerate(rows):
        if images is None:
            images = np.empty((count, *row["image"].shape), np.uint8)
        images[index], labels[index] = row["image"], row["label"]
    if images is None:
        raise UserError(f"{folder} has no images in split {split!r}.")
    return images, labels, _class_names(builder.info)


def _class_names(info: Any) -> tuple[str, ...]:
    label = info.features["label"]
    if (label.num_classes or 0) > _MOST_CLASSES:
        raise UserError(f"{info.full_name} is damaged: it has {label.num_classes:,} classes.")
    return tuple(label.names) if label.names else ()


def _decode(data: bytes) -> np.ndarray:
    """(H, W, C) of a PNG or JPEG."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode not in ("L", "RGB"):
            raise ValueError(f"an image has Pillow's mode {picture.mode}, not L or RGB")
        image = np.asarray(picture)
    return image[..., None] if image.ndim == 2 else image


def _encode(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    grey = image.shape[-1] == 1
    Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image)).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def _builder_class() -> Any:
    """The one builder of all sets; a class that is not registered may bear an official name."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "image_set"

        def __init__(self, data_dir, official, splits, side, class_names, description):
            self.name = official.name
            self.VERSION = tfds.core.Version(official.version)
            self._official = official
            self._splits = splits
            self._side = side
            self._class_names = class_names
            self._text = description
            super().__init__(data_dir=os.fspath(data_dir), file_format=_FORM)

        def _info(self):
            shape = (self._side, self._side, self._official.channels)
            features = {
                "image": tfds.features.Image(shape=shape, encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(self._class_names)),
            }
            if self._official.id_digits:
                features["id"] = tfds.features.Text()
            if self._official.coarse:
                features["coarse_label"] = tfds.features.ClassLabel(
                    num_classes=self._official.coarse
                )
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._text,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in self._splits}

        def _generate_examples(self, split):
            raw = self._splits[split]()
            for index, (image, label) in enumerate(zip(raw.images, raw.labels, strict=True)):
                example = {"image": _encode(image), "label": int(label)}
                if self._official.id_digits:
                    example["id"] = f"{split}_{index:0{self._official.id_digits}d}"
                if self._official.coarse:
                    example["coarse_label"] = -1 if raw.coarse is None else int(raw.coarse[index])
                yield index, example

    return Builder
