"""Compiled programs are found again by the next command, and their folder stays small."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from experiments import compiled
from flown_jax.errors import UserError
from tests.parity.fixtures import ROOT

# A command's way to it, a program, and how many were found and stored.
PROGRAM = """
import sys
from experiments import compiled
folder = compiled.keep(*sys.argv[1:])
import jax, jax.monitoring
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.split("/")[-1]))
x = jax.jit(lambda x: x @ x.T)(jax.numpy.ones((3, 5)))
print(events.count("cache_hits"), folder, float(x.sum()))
"""


def ran(home, *arguments: str, **more: str) -> list[str]:
    """Programs found, the folder, and the result of a process with this home."""
    ours = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    environment = {**kept, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home), **more}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.split()


def test_the_next_process_finds_what_one_has_compiled(tmp_path):
    first, folder, value = ran(tmp_path)
    found, again, same = ran(tmp_path)
    assert int(found) > int(first) == 0 and again == folder and same == value == "45.0"
    assert folder.startswith(str(tmp_path / "flown_jax" / "compiled-"))


def test_a_folder_can_be_named_and_none(tmp_path):
    for arguments, more in (
        ((str(tmp_path / "mine"),), {}),
        ((), {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax")}),
    ):
        _, folder, _ = ran(tmp_path / "home", *arguments, **more)
        assert folder == str(*arguments, *more.values()) and os.listdir(folder)
    assert ran(tmp_path / "home", "none")[1] == "None"
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_keeps_none(tmp_path):
    (tmp_path / "file").write_text("")
    assert ran(tmp_path / "file")[1:] == ["None", "45.0"]


@pytest.mark.parametrize("name", ["file", "file/below", ""])
def test_a_named_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^--compilation_cache={name}: such a folder cannot be"):
        compiled.keep(name)


def test_the_old_and_the_many_are_removed(tmp_path, monkeypatch):
    now = time.time()
    for name, days, size in (("old", 31, 1), ("read", 3, 50), ("older", 2, 40), ("new", 1, 30)):
        path = tmp_path / name
        path.write_bytes(bytes(size))
        os.utime(path, (now - days * 86_400, now - 40 * 86_400))  # written long ago, read since
    monkeypatch.setattr(compiled, "_BYTES", 80)
    compiled._clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "older"]
    compiled._clear(tmp_path / "absent")


@pytest.mark.parametrize("changed", ["version", "processor"])
def test_another_processor_or_version_has_a_folder_of_its_own(monkeypatch, changed):
    before = compiled.default_folder()
    assert compiled.default_folder() == before
    if changed == "version":
        monkeypatch.setattr("jaxlib.__version__", "0")
    else:
        monkeypatch.setattr(compiled, "_processor", lambda: "another")
    assert compiled.default_folder() != before
