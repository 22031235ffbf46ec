"""A path that cannot be used ends every command with one sentence, whichever flag names it."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from experiments import command
from flown_jax.torch_import.files import write_state_dict
from tests.parity.fixtures import ROOT

pytestmark = pytest.mark.fast

LONG = "a" * 300
TINY = {
    "fewshot": "configs/fsl.py:tiny",
    "retrieval": "configs/retrieval.py:tiny",
    "train_trajectory": "configs/trajectory.py:tiny",
    "train_zoo": "configs/zoo.py:tiny",
}


def sentence(monkeypatch, capsys, name: str, *arguments: str) -> str:
    """What the command ends with."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"experiments.{name}", *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.{name}.__main__").main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize("name", TINY)
def test_the_folder_of_a_run(monkeypatch, capsys, tmp_path, name):
    (tmp_path / "file").touch()
    paths = [f"{tmp_path}/{LONG}", f"{tmp_path}/file", f"{tmp_path}/file/w", f"{LONG}/w"]
    for path in paths[: 4 if name == "train_zoo" else 1]:  # the same code, behind longer checks
        found = sentence(monkeypatch, capsys, name, f"--config={TINY[name]}", f"--workdir={path}")
        assert "file" in found or "aaaa" in found
    assert "there is no conf" in sentence(monkeypatch, capsys, name, f"--config={LONG}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("bad", [LONG, "file", "file/below", "absent"])
def test_what_is_read(monkeypatch, capsys, tmp_path, bad):
    (tmp_path / "file").touch()
    path = f"{tmp_path}/{bad}"
    for name, arguments in (
        ("compare", [path]),
        ("publish", [path, f"--to={tmp_path}/new"]),
        ("publish", ["--again", f"--to={path}"]),
        ("zoo_info", [path]),
        ("zoo_merge", [f"{tmp_path}/new", path]),
        ("novelty", [path, "zoos/mnist_short", "--data=digits"]),
        ("prepare_data", ["mnist", f"--from={path}", f"--to={tmp_path}/new"]),
        ("import_zoo", ["state_dicts", f"--from={path}", f"--to={tmp_path}/new"]),
        ("import_zoo", ["pdiff", f"--from={path}", f"--to={tmp_path}/new"]),
        ("import_zoo", ["model_zoo", f"--from={path}", f"--to={tmp_path}/new"]),
        ("import_zoo", ["pdiff", f"--from={tmp_path}", f"--base={path}", f"--to={tmp_path}/new"]),
    ):
        sentence(monkeypatch, capsys, name, *arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("bad", [LONG, "file/below"])
def test_what_is_written(monkeypatch, capsys, tmp_path, bad):
    (tmp_path / "file").touch()
    (tmp_path / "nets").mkdir()
    state = {"fc.weight": np.ones((10, 4), np.float32), "fc.bias": np.ones(10, np.float32)}
    write_state_dict(str(tmp_path / "nets" / "0.pt"), state)
    target, nets = f"{tmp_path}/{bad}", f"--from={tmp_path / 'nets'}"
    for name, arguments in (
        ("import_zoo", ["state_dicts", nets, f"--to={target}", "--dataset=mnist"]),
        ("prepare_data", ["mnist", nets, f"--to={target}"]),
        ("zoo_info", ["zoos/mnist_short", f"--output={target}"]),
    ):
        sentence(monkeypatch, capsys, name, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nets"]


def test_a_mistake_of_the_system_is_one_sentence_and_ours_keeps_its_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, command.one_sentence():
        (tmp_path / LONG).read_text()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(OSError, match="ours"), command.one_sentence():
        raise OSError("ours")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config():\n    return {}", "must give a ConfigDict, not dict"),
        ("def get_config():\n    return 1 / 0", "fails: ZeroDivisionError: division by zero"),
        ("import nothing_like_this", "fails: ModuleNotFoundError: "),
        ("def get_config(:", "line 1, is no Python"),
        ("x = 1", "has no function get_config"),
        ("from ml_collections import ConfigDict as get_config", "the config has no field data.dir"),
    ],
)
def test_a_config_file_of_ones_own(monkeypatch, capsys, tmp_path, text, words):
    (tmp_path / "own.py").write_text(text)
    found = sentence(monkeypatch, capsys, "train_zoo", f"--config={tmp_path}/own.py")
    assert words in found


def test_a_foreign_results_file_is_no_run(monkeypatch, capsys, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([1]))
    assert "results.json" in sentence(monkeypatch, capsys, "compare", str(tmp_path))
