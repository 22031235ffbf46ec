"""The command line: one sentence for each mistake, and nothing begun."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from experiments import command
from experiments.fewshot import __main__ as fewshot
from flown_jax.errors import UserError
from tests.parity.fixtures import ROOT

TINY = "configs/fsl.py:tiny"


def call(monkeypatch, capsys, *arguments: str) -> str:
    """The sentence that the command ends with."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["experiments.fewshot", *arguments])
    with pytest.raises(SystemExit) as ended:
        fewshot.main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config=configs/fsl.py:huge"], "no variant 'huge'; it has default, tiny, unet, mini_i"),
        (["--config=configs/nothing.py"], "there is no configuration file 'configs/nothing.py'"),
        (["--config.flow.recipe.step=3"], "the nearest is config.flow.recipe.steps"),
        (["--config.seed=two"], "--config.seed=two: a whole number is wanted"),
        (["--config.flow=3"], "config.flow is a group of fields"),
        (["--wokdir=x"], "the nearest is --workdir"),
        (["stray"], "takes no argument 'stray'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(monkeypatch, capsys, arguments, sentence):
    assert sentence in call(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.data.name=imagenet", "data.name is 'imagenet'"),
        ("--config.data.train_classes=5000", "too few for 5000 training"),
        ("--config.sampling.solver=magic", "solver 'magic' is unknown, expected one of euler"),
        ("--config.velocity.kind=unet", "velocity.kind 'unet' takes latents of 3 axes"),
        ("--config.targets.kind=none", "targets.kind is 'none'"),
        ("--config.tasks.settings=('5-way',)", "tasks.settings has '5-way'"),
        ("--config.flow.coupling=exact_ot", "flow.coupling is 'exact_ot': transport over tasks"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_at_once(
    monkeypatch, capsys, tmp_path, override, sentence
):
    found = call(monkeypatch, capsys, f"--config={TINY}", override, f"--workdir={tmp_path}/run")
    assert sentence in found


def test_a_foreign_folder_and_a_forbidden_one_are_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    found = call(monkeypatch, capsys, f"--config={TINY}", f"--workdir={tmp_path}")
    assert "was not made by flown_jax" in found
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    found = call(monkeypatch, capsys, f"--config={TINY}", f"--workdir={tmp_path}/thesis.txt/run")
    assert "thesis.txt" in found


def test_only_the_users_mistakes_are_told_without_a_traceback():
    with pytest.raises(SystemExit), command.one_sentence():
        raise UserError("wrong")
    with pytest.raises(ZeroDivisionError), command.one_sentence():
        _ = 1 / 0
    with pytest.raises(ValueError, match="ours"), command.one_sentence():
        raise ValueError("ours")


def test_help_says_what_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.fewshot", "--help"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Few-shot learning with generated heads" in done.stdout
    assert "--workdir" in done.stdout and "--config" in done.stdout
