"""USPS in its three forms: the same grey levels from each, errors with line numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flown_jax.data.formats import usps
from flown_jax.errors import UserError
from tests.data import raw_files


@pytest.mark.parametrize("kind", ["libsvm", "zip", "hdf5"])
def test_files_come_back(tmp_path, kind):
    if kind == "hdf5":
        pytest.importorskip("h5py", reason="usps.h5 is read with h5py")
    written = raw_files.write_usps(tmp_path, kind)
    raw = usps.find("usps", tmp_path)
    for split, (images, labels) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)


def test_values_are_cut_to_levels(tmp_path):
    # (v + 1) / 2 * 255 = 127.5, 254.745, 255, 0 and, where nothing stands, 127.5.
    (tmp_path / "usps").write_text("1 1:0.0 2:0.998 3:1 4:-1\n")
    (tmp_path / "usps.t").write_text("10 256:1\n")
    part = usps.find("usps", tmp_path).splits["train"]()
    assert part.images[0, 0, :5, 0].tolist() == [127, 254, 255, 0, 127]
    last = usps.find("usps", tmp_path).splits["test"]()
    assert last.labels.tolist() == [9]
    assert last.images[0, 15, 15, 0] == 255


def test_hdf5_without_h5py_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "usps.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"usps\.h5 needs h5py \(pip install h5py\)"):
        usps.find("usps", tmp_path).splits["train"]()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("usps", "1 1:0\n2 1=0\n", "line 2, is no libsvm text"),
        ("usps", "1 257:0\n", r"index 257 is outside 1\.\.256"),
        ("usps", "11 1:0\n", r"label 11 of image 0 is outside 1\.\.10"),
        ("usps", "1 1:5\n", "pixels outside its range"),
        ("usps", "", "0 images and 0 labels"),
        ("usps", "1.5 1:-1\n", "label 1.5 of image 0 is no whole number"),
        ("usps", "nan 1:-1\n", "label nan of image 0 is no whole number"),
        ("usps", "1 1:nan\n", "pixels outside its range"),
        ("usps", "1 1:0.5\n" * 10, r"no pixel below 0; values in \[-1, 1\] are expected"),
        ("zip.train", "1 0 0\n", "line 1, has 3 numbers"),
        ("zip.train", "1 a\n", "line 1: could not convert"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    (tmp_path / {"usps": "usps.t", "zip.train": "zip.test"}[name]).write_text("1 1:0\n")
    with pytest.raises(UserError, match=sentence):
        usps.find("usps", tmp_path).splits["train"]()


def test_other_sets_have_no_usps_files(tmp_path):
    raw_files.write_usps(tmp_path, "zip")
    assert usps.find("mnist", tmp_path) is None


def test_hdf5_that_lies_elsewhere_or_promises_too_much_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    raw_files.write_usps(tmp_path, "hdf5")
    (tmp_path / "raw.bin").write_bytes(bytes(256 * 4))
    raw = [(str(tmp_path / "raw.bin"), 0, 256 * 4)]
    (tmp_path / "usps.h5").rename(tmp_path / "other.h5")
    cases = {
        "has a link test/data": lambda file: file["test"].__setitem__(
            "data", h5py.ExternalLink(str(tmp_path / "other.h5"), "/test/data")
        ),
        "keeps test/data in another file": lambda file: file["test"].create_dataset(
            "data", (1, 256), "f4", external=raw
        ),
        "data of .* unpacks from": lambda file: file["test"].create_dataset(
            "data", (10**10, 256), "f4", chunks=(100, 256)
        ),
        "truncated or damaged": lambda file: None,
    }
    for sentence, make in cases.items():
        with h5py.File(tmp_path / "usps.h5", "w") as file:
            file.create_group("test")["target"] = np.zeros(1, np.int64)
            make(file)
        with pytest.raises(UserError, match=f"usps.h5 .*{sentence}|{sentence}"):
            usps.find("usps", tmp_path).splits["test"]()
