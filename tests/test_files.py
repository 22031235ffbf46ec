"""Files that are whole or absent, however many write them, and what the disk refuses."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from flown_jax import files
from flown_jax.errors import UserError

pytestmark = pytest.mark.fast


def test_writers_beside_each_other_all_succeed(tmp_path):
    path, failed = tmp_path / "x.bin", []

    def write(letter):
        for _ in range(30):
            try:
                files.write_bytes(path, letter * 5000)
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = path.read_bytes()
    assert not failed and len(data) == 5000 and len(set(data)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_failed_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, error):
    path = tmp_path / "x.bin"
    files.write_bytes(path, b"old")

    def fails(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(type(error)) as told:
        files.write_bytes(path, b"new")
    assert getattr(told.value, "filename", str(path)) == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    files.write_bytes(tmp_path / ("x" * 255), b"long")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"long"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("absent/x.bin", "absent/x.bin: it, or the folder that it is to lie in, is not there"),
        ("folder", "folder as a file: it is a folder"),
        ("file/x.bin", "file/x.bin: a part of it is not a folder"),
        ("x" * 300, "its name is too long"),
    ],
)
def test_places_where_no_file_can_be_are_named(tmp_path, name, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=sentence) as told, files.writing(tmp_path / name):
        files.write_bytes(tmp_path / name, b"")
    assert ".tmp" not in str(told.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"value": NaN}', '{"value": -Infinity}'])
def test_what_is_no_json_is_damaged(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"the record is damaged: cannot read .*x\.json"):
        files.read_json(tmp_path / "x.json", "the record")


def test_one_writer_is_in_a_folder_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with files.alone_in(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1} and not list(tmp_path.iterdir())
    with files.alone_in(tmp_path, reading=True), files.alone_in(tmp_path, reading=True):
        pass  # readers do not wait for each other
