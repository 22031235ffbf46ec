"""The installed program: its list of commands, and that they are the commands of a checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from experiments import cli, command
from flown_jax import __version__
from flown_jax.errors import UserError
from tests.parity.fixtures import ROOT

PROGRAM = "from experiments.cli import main; main()"


def flown(folder, *arguments: str) -> subprocess.CompletedProcess:
    """The program, called in a folder that has nothing of the checkout."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_every_command_has_a_line():
    found = cli.commands()
    assert set(found) == {path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")}
    lines = cli.overview().splitlines()
    for name, says in found.items():
        assert says.endswith((".", "?")), name
        assert sum(line.split()[:1] == [name] and line.endswith(says) for line in lines) == 1


def test_without_a_command_and_with_an_unknown_one_all_are_listed(tmp_path):
    for arguments in ((), ("--help",)):
        done = flown(tmp_path, *arguments)
        assert done.returncode == 0 and done.stdout.strip() == cli.overview() and not done.stderr
    done = flown(tmp_path, "fewshoot")
    assert done.returncode == 2 and done.stdout.strip() == cli.overview()
    assert done.stderr == "error: there is no command 'fewshoot'; the nearest is fewshot.\n"


def test_the_version_is_told(tmp_path):
    assert flown(tmp_path, "--version").stdout == f"flown_jax {__version__}\n"


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [(), ("fewshot", "--help"), ("fewshoot",)])
def test_a_reader_who_leaves_is_no_error(tmp_path, arguments, buffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": buffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_configs_are_found_without_a_checkout(tmp_path):
    for file in ("fsl.py", "configs/fsl.py"):
        done = flown(tmp_path, "fewshot", f"--config={file}:huge")
        assert done.returncode == 2 and "no variant 'huge'; it has default, tiny" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.load_config("fsl.py").variant == "default"
    (tmp_path / "fsl.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant='mine'):\n    return ConfigDict({'variant': variant})\n"
    )
    assert command.load_config("fsl.py").variant == "mine"
    assert command.load_config("configs/fsl.py:tiny").variant == "tiny"
    assert command.load_config(str(tmp_path / "fsl.py:x")).variant == "x"
    with pytest.raises(UserError, match=r"no configuration file '\.\./configs/fsl\.py'"):
        command.load_config("../configs/fsl.py")


def test_help_has_the_lines_of_the_program_that_is_called(monkeypatch, capsys):
    doc = "Does it.\n\n    python -m experiments.zoo_info PATH"
    for program, line in (("flown", "flown zoo_info"), ("x", "python -m experiments.zoo_info")):
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.raises(SystemExit):
            command.Parser("experiments.zoo_info", doc).parse_args(["--help"])
        shown = capsys.readouterr().out
        assert f"usage: {line}" in shown and f"{line} PATH" in shown
