"""What the readers of raw files share: unpacking within bounds, labels, names that are no data."""

from __future__ import annotations

import bz2
import gzip
import io
import pathlib
import tarfile

import numpy as np
import pytest

from flown_jax.data import formats
from flown_jax.errors import UserError

pytestmark = pytest.mark.fast


@pytest.fixture
def small(monkeypatch):
    """The bound on what is unpacked, small enough to be passed."""
    monkeypatch.setattr(formats, "_UNPACKED", 10**6)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_what_unpacks_to_far_more_than_images_is_refused(tmp_path, small, suffix, pack):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(pack(bytes(10**5)))
    assert formats.read_bytes(path) == bytes(10**5)
    path.write_bytes(pack(bytes(4 * 10**6)))
    with pytest.raises(UserError, match=r"unpacks from .* bytes or more, which no images do"):
        formats.read_bytes(path)


def test_members_of_crafted_sizes_are_refused(tmp_path, small):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("batch")
        member.size = 4 * 10**6
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UserError, match="batch of .* unpacks from"):
        formats.read_members(path, ["batch"])


def test_links_of_archives_are_no_files(tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo("batch")
            member.type, member.linkname = kind, str(tmp_path / "outside")
            archive.addfile(member)
    with pytest.raises(UserError, match="has no file batch"):
        formats.read_members(path, ["batch"])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 10], "label 10 of image 1 is outside 0..9"),
        (np.array([-1]).astype(np.uint32), "label 4294967295 of image 0 is outside"),
        (np.array([2**63], np.uint64), "label 9223372036854775808 of image 0 is outside"),
        ([-1, 0], "label -1 of image 0"),
        ([0.0, 0.5], "label 0.5 of image 1 is no whole number"),
        ([float("nan")], "label nan of image 0 is no whole number"),
        ([float("inf")], "label inf of image 0 is no whole number"),
        ([True, False], "labels of bool"),
        (["3"], "labels of <U1"),
        (np.eye(10), r"labels of float64 \(10, 10\); whole numbers, one an image"),
        (np.array(3), r"labels of int64 \(\)"),
        (np.array([None]), "labels of object"),
    ],
)
def test_labels_that_would_need_a_guess_are_refused(labels, sentence):
    with pytest.raises(UserError, match=f"x.npz.*{sentence}"):
        formats.shift_labels(labels, 0, 9, "x.npz")


@pytest.mark.parametrize(
    "labels", [[1, 10], [1.0, 10.0], [[1], [10]], np.array([[1, 10]], np.uint8)]
)
def test_labels_move_to_zero(labels):
    assert formats.shift_labels(labels, 1, 10, "x.npz").tolist() == [0, 9]
    assert formats.shift_labels(np.zeros(0), 1, 10, "x.npz").tolist() == []


@pytest.mark.parametrize("name", ["._x.png", ".DS_Store", "Thumbs.db", "__MACOSX", "x.png~", "~$x"])
def test_names_that_are_no_data(name):
    assert formats.is_stray(pathlib.Path("a") / name)
    assert not formats.is_stray(pathlib.Path("a") / f"a{name}.png")
