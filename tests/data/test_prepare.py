"""From raw files to prepared sets: reports, refusals, interruptions, real data where at hand."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flown_jax.data import array_record, image_sets, prepare
from flown_jax.data.catalogue import EMBEDDED, facts
from flown_jax.errors import UserError
from flown_jax.files import sha256_of
from tests.data import raw_files
from tests.parity.fixtures import ROOT


def _prepare(name, tmp_path, **options):
    return prepare.prepare(name, tmp_path / "raw", tmp_path / "data", **options)


def _assert_equal(name, tmp_path, written):
    for split, (images, labels, *_) in written.items():
        part = image_sets.load(name, split, tmp_path / "data")
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("fashion_mnist", raw_files.write_idx),
        ("usps", lambda folder: raw_files.write_usps(folder, "libsvm")),
        ("svhn_cropped", raw_files.write_svhn),
        ("cifar10", lambda folder: raw_files.write_cifar10(folder, "python")),
        ("cifar100", lambda folder: raw_files.write_cifar100(folder, "binary")),
        ("stl10", raw_files.write_stl10),
    ],
)
def test_raw_files_become_a_set(tmp_path, name, writer):
    written = writer(tmp_path / "raw")
    report = _prepare(name, tmp_path)
    assert report.written and report.folder == tmp_path / "data" / name / facts(name).version
    _assert_equal(name, tmp_path, written)
    official = facts(name).counts
    assert report.counts == {s: (len(part[0]), official[s]) for s, part in written.items()}
    # Nothing but the set is left.
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name]


def test_origin_is_kept(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    report = _prepare("mnist", tmp_path)
    origin = json.loads((report.folder / "flown_jax.json").read_text())
    assert origin["set"] == "mnist" and origin["source"] == "idx files"
    assert origin["splits"]["train"] == {"images": 20, "official": 60_000}
    assert origin["official_counts_and_side"] is False
    path = tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz"
    assert origin["sha256"][path.name] == sha256_of(path)
    assert len(origin["sha256"]) == 4


def test_subset_of_another_size_is_told_plainly(tmp_path):
    images, labels = raw_files.flat(20, 64), raw_files.cyclic(20)
    (tmp_path / "raw").mkdir()
    split = np.repeat([0, 1], 10)
    raw_files.write_sheets(tmp_path / "raw" / "stl10.npz", images, labels, split)
    text = "\n".join(_prepare("stl10", tmp_path).lines())
    assert "train: 10 of 5,000 official images" in text
    assert "the images are 64 x 64; the official ones are 96 x 96" in text
    assert "there is no unlabelled split" in text and "JPEG" in text


def test_complete_set_is_recognised(tmp_path, monkeypatch):
    monkeypatch.setitem(facts("usps").counts, "train", 20)
    monkeypatch.setitem(facts("usps").counts, "test", 20)
    raw_files.write_usps(tmp_path / "raw", "zip")
    report = _prepare("usps", tmp_path)
    assert report.notes == ()
    origin = json.loads((report.folder / "flown_jax.json").read_text())
    assert origin["official_counts_and_side"] is True


def test_set_that_is_there_is_kept_unless_overwritten(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    first = _prepare("mnist", tmp_path)
    written = raw_files.write_idx(tmp_path / "raw", count=30)
    again = _prepare("mnist", tmp_path)
    assert not again.written and again.counts == first.counts
    assert "is there already (--overwrite makes it anew)" in again.lines()[-1]
    assert image_sets.load("mnist", "train", tmp_path / "data").images.shape[0] == 20
    assert _prepare("mnist", tmp_path, overwrite=True).counts["train"][0] == 30
    _assert_equal("mnist", tmp_path, written)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist"]


def test_failed_overwrite_keeps_the_old_set(tmp_path):
    written = raw_files.write_idx(tmp_path / "raw", packed=False)
    _prepare("mnist", tmp_path)
    path = tmp_path / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is truncated"):
        _prepare("mnist", tmp_path, overwrite=True)
    _assert_equal("mnist", tmp_path, written)


KILLED = """
import os, sys
from flown_jax.data import array_record, prepare
encode, left = array_record._encode, [25]
def dying(image):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return encode(image)
array_record._encode = dying
prepare.prepare("mnist", sys.argv[1], sys.argv[2])
"""


def test_killed_conversion_leaves_no_set_and_is_cleared_by_the_next(tmp_path):
    written = raw_files.write_idx(tmp_path / "raw")
    arguments = [sys.executable, "-c", KILLED, tmp_path / "raw", tmp_path / "data"]
    assert subprocess.run(arguments, capture_output=True).returncode == 9
    (left,) = (tmp_path / "data").iterdir()
    assert left.name == ".mnist.unfinished" and len(list(left.iterdir())) > 1
    with pytest.raises(UserError, match="there is no image set mnist"):
        image_sets.load("mnist", "train", tmp_path / "data")
    assert _prepare("mnist", tmp_path).written
    _assert_equal("mnist", tmp_path, written)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist"]


def test_two_conversions_of_a_set_do_not_meet(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    place = tmp_path / "data" / ".mnist.unfinished"
    place.mkdir(parents=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another conversion of mnist into .* is at work"):
            _prepare("mnist", tmp_path)
    assert _prepare("mnist", tmp_path).written


def test_a_lock_that_was_removed_keeps_nobody_out(tmp_path, monkeypatch):
    raw_files.write_idx(tmp_path / "raw")
    place, lock, holders = tmp_path / "data" / ".mnist.unfinished", fcntl.flock, []

    def late(descriptor, operation):
        if not holders:  # meanwhile one conversion ends, and another begins
            shutil.rmtree(place)
            place.mkdir()
            (place / "half").touch()
            holders.append(os.open(place / "lock", os.O_CREAT | os.O_RDWR))
            lock(holders[0], fcntl.LOCK_EX)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another conversion of mnist into .* is at work"):
        _prepare("mnist", tmp_path)
    assert (place / "half").exists()
    os.close(holders[0])


def test_a_set_that_another_conversion_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    written, find = raw_files.write_idx(tmp_path / "raw"), prepare._find

    def slow(name, source):
        monkeypatch.setattr(prepare, "_find", find)
        assert _prepare(name, tmp_path).written
        raw_files.write_idx(tmp_path / "raw", count=30)
        return find(name, source)

    monkeypatch.setattr(prepare, "_find", slow)
    assert not _prepare("mnist", tmp_path).written
    _assert_equal("mnist", tmp_path, written)


def test_a_set_that_was_being_replaced_comes_back(tmp_path):
    written = raw_files.write_idx(tmp_path / "raw")
    folder = _prepare("mnist", tmp_path).folder
    (tmp_path / "data" / ".mnist.unfinished").mkdir()
    folder.rename(tmp_path / "data" / ".mnist.unfinished" / "old")
    assert not _prepare("mnist", tmp_path).written
    _assert_equal("mnist", tmp_path, written)


def test_names_that_no_disk_takes_and_odd_targets_are_one_sentence(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    long = "a" * 300
    for source, target in (("raw", long), (long, "data"), ("raw", f"data/{long}/x")):
        with pytest.raises(UserError, match="cannot use .*aa.*name is too long"):
            prepare.prepare("mnist", tmp_path / source, tmp_path / target)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot use .*link"):
        prepare.prepare("mnist", tmp_path / "raw", tmp_path / "link")
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "mnist").touch()
    with pytest.raises(UserError, match="mnist is a file, where a folder is wanted"):
        _prepare("mnist", tmp_path)


def test_a_damaged_origin_is_one_sentence(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    folder = _prepare("mnist", tmp_path).folder
    for text in ("{}", "[]", '{"source": 1, "files": null, "notes": []}'):
        (folder / "flown_jax.json").write_text(text)
        with pytest.raises(UserError, match="is damaged: flown_jax.json lacks fields"):
            _prepare("mnist", tmp_path)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_pictures_of_both_depths_become_the_same_set(tmp_path, bits):
    ramp = np.linspace(0, 255, 784).astype(np.uint8).reshape(28, 28)
    picture = Image.fromarray(ramp if bits == 8 else ramp.astype(np.uint16) * 257)
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "raw" / split / str(label)).mkdir(parents=True)
            picture.save(tmp_path / "raw" / split / str(label) / "a.png")
    _prepare("mnist", tmp_path)
    images = image_sets.load("mnist", "train", tmp_path / "data").images[..., 0]
    np.testing.assert_array_equal(images, np.stack([ramp] * 10))


def test_a_folder_in_the_way_is_refused(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    target = tmp_path / "data" / "mnist" / "3.0.1"
    target.mkdir(parents=True)
    with pytest.raises(UserError, match="exists and is no finished image set; remove it"):
        _prepare("mnist", tmp_path)
    assert _prepare("mnist", tmp_path, overwrite=True).written


def test_set_of_tensorflow_datasets_itself_is_recognised(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    folder = _prepare("mnist", tmp_path).folder
    (folder / "flown_jax.json").unlink()
    report = _prepare("mnist", tmp_path)
    assert not report.written and report.what == "TensorFlow Datasets"


def test_a_written_set_that_differs_is_refused(tmp_path, monkeypatch):
    raw_files.write_idx(tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(array_record, "_encode", lambda image, e=array_record._encode: e(255 - image))
        with pytest.raises(UserError, match="other images in train than were written"):
            _prepare("mnist", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(array_record, "counts", lambda folder: {"train": 20, "test": 19})
        with pytest.raises(UserError, match="images after writing, not"):
            _prepare("mnist", tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


def test_files_of_another_set_are_recognised_by_their_labels(tmp_path):
    raw_files.write_idx(tmp_path / "raw", packed=False)
    labels = raw_files.cyclic(20)
    labels[:12] = [9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5]  # Fashion-MNIST's first test labels
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte").write_bytes(raw_files.idx_bytes(labels))
    with pytest.raises(UserError, match="belongs to fashion_mnist, not to mnist"):
        _prepare("mnist", tmp_path)


def test_first_whole_format_is_taken_and_the_rest_is_told(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    images, labels = raw_files.pictures(20, 28, 1, 7), raw_files.cyclic(20)
    arrays = {f"{split}_{kind}": array for split in ("train", "test")
              for kind, array in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "raw" / "mnist.npz", **arrays)
    assert _prepare("mnist", tmp_path).notes == ("not used: arrays in a .npz (mnist.npz)",)
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    report = _prepare("mnist", tmp_path, overwrite=True)
    assert report.what == "arrays in a .npz"
    assert report.notes[0].startswith("refused: ") and "lacks t10k-labels" in report.notes[0]
    _assert_equal("mnist", tmp_path, {"train": (images, labels)})


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"train_labels": raw_files.cyclic(20, 9)}, "train split has images of 9 classes; 10 are"),
        (
            {"train_labels": raw_files.cyclic(20, 11)},
            r"label 10 at image 10; its labels are 0 to 9",
        ),
        (
            {"train_images": np.zeros((20, 28, 28, 3), np.uint8)},
            "28 x 28 x 3; squares of 1 channel",
        ),
        ({"train_images": np.zeros((20, 28, 30), np.uint8)}, "28 x 30 x 1; squares"),
        ({"test_images": np.zeros((20, 32, 32), np.uint8)}, "side 32, the train split of 28"),
    ],
)
def test_arrays_that_are_not_the_set_are_refused(tmp_path, arrays, sentence):
    (tmp_path / "raw").mkdir()
    images, labels = raw_files.pictures(20, 28, 1), raw_files.cyclic(20)
    good = {"train_images": images, "train_labels": labels, "test_images": images,
            "test_labels": labels}  # fmt: skip
    np.savez(tmp_path / "raw" / "mnist.npz", **{**good, **arrays})
    with pytest.raises(UserError, match=sentence):
        _prepare("mnist", tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


def test_missing_split_is_named(tmp_path):
    (tmp_path / "raw").mkdir()
    images, labels = raw_files.pictures(20, 28, 1), raw_files.cyclic(20)
    np.savez(tmp_path / "raw" / "mnist.npz", train_images=images, train_labels=labels)
    with pytest.raises(UserError, match=r"mnist\.npz has no test images"):
        _prepare("mnist", tmp_path)


def test_wrong_arguments_are_one_sentence(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in EMBEDDED:
        with pytest.raises(UserError, match=f"{name} is part of the library"):
            _prepare(name, tmp_path)
    with pytest.raises(UserError, match="there is no image set 'omniglot'"):
        _prepare("omniglot", tmp_path)
    with pytest.raises(UserError, match=r"no raw files of cifar10: cifar-10-python\.tar\.gz"):
        _prepare("cifar10", tmp_path)
    with pytest.raises(UserError, match="there is no folder .*nowhere"):
        prepare.prepare("mnist", tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(UserError, match="gs://bucket is not on a local disk"):
        prepare.prepare("mnist", tmp_path / "raw", "gs://bucket")
    raw_files.write_idx(tmp_path / "raw")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of it is not a folder"):
        prepare.prepare("mnist", tmp_path / "raw", tmp_path / "file")


def test_pickles_that_could_run_code_are_refused(tmp_path):
    raw_files.write_cifar10(tmp_path / "raw", "python")

    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    (tmp_path / "raw" / "data_batch_3").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(UserError, match="data_batch_3 asks for"):
        _prepare("cifar10", tmp_path)
    assert not (tmp_path / "made").exists()


def test_real_usps(tmp_path):
    folder = pathlib.Path(os.environ.get("FLOWN_DATA_DIR", ROOT / "../shared/data"))
    if not (folder / "usps.npz").exists():
        pytest.skip("no usps.npz: set FLOWN_DATA_DIR to the folder of image data")
    report = prepare.prepare("usps", folder, tmp_path)
    assert report.counts == {"train": (7291, 7291), "test": (2007, 2007)}
    train = image_sets.load("usps", "train", tmp_path)
    counts = np.bincount(train.labels)
    assert counts[0] == 1194 and counts[8] == 542  # zip.train's
    # Ink on a dark ground: the border is darker than the middle.
    means = train.images[..., 0].mean(0)
    assert means[:, 0].mean() < 0.3 * means[4:12, 4:12].mean()
