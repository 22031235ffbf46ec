"""Real signals end every command with one sentence and the signal's exit status, at any moment."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from experiments import command, interrupts
from tests.parity.fixtures import ROOT

COMMANDS = (
    "about",
    "adapt",
    "compare",
    "export_model",
    "fewshot",
    "import_zoo",
    "novelty",
    "predict_accuracy",
    "prepare_data",
    "publish",
    "reconstruct",
    "retrieval",
    "train_trajectory",
    "train_zoo",
    "unconditional",
    "zoo_info",
    "zoo_merge",
)
SENTENCE = ["error: stopped; the same command goes on from here."]
UNTIL = 60  # seconds, on a busy machine
# A test that runs behind a shell may ignore interrupts, and its children with it.
RESTORED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def ended(
    tmp_path: pathlib.Path,
    arguments: list[str],
    ready: Callable[[str], bool],
    *signals: signal.Signals,
) -> tuple[int, list[str], float]:
    """Exit status, sentences and seconds from the signals, sent when `ready(standard error)`."""
    told = tmp_path / "stderr.txt"
    with open(told, "w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RESTORED, sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        until = time.monotonic() + UNTIL
        while not ready(told.read_text()):
            assert process.poll() is None and time.monotonic() < until, told.read_text()[-500:]
            time.sleep(0.02)
        sent = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.01)
        status = process.wait(UNTIL)
    finally:
        process.kill()
    noise = ("import time:", "base: step", "backbone: step")
    lines = [line for line in told.read_text().splitlines() if not line.startswith(noise)]
    return status, lines, time.monotonic() - sent


def test_all_commands_are_listed():
    found = {path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")}
    assert found == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_while_modules_are_imported(tmp_path, name):
    importing = ["-X", "importtime", "-m", f"experiments.{name}"]
    status, lines, _ = ended(tmp_path, importing, lambda told: "numpy" in told, signal.SIGINT)
    assert (status, lines) == (130, SENTENCE)


@pytest.mark.parametrize(
    ("name", "config", "signals", "expected"),
    [
        ("train_trajectory", "trajectory", [signal.SIGTERM], 143),
        ("fewshot", "fsl", [signal.SIGINT] * 2, 130),
    ],
)
def test_a_signal_while_something_is_computed(tmp_path, name, config, signals, expected):
    run = [f"--config=configs/{config}.py:tiny", f"--workdir={tmp_path}/run/w"]
    status, lines, seconds = ended(
        tmp_path,
        ["-m", f"experiments.{name}", *run],
        lambda told: any((tmp_path / "run").rglob("progress")),  # a stage is being computed
        *signals,
    )
    assert (status, lines) == (expected, SENTENCE)
    assert seconds < 10


def test_an_interrupt_while_a_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    status, lines, _ = ended(
        tmp_path,
        ["-X", "importtime", "-m", "experiments.compare", str(tmp_path)],
        lambda told: "experiments.means" in told and not time.sleep(0.5),
        signal.SIGINT,
    )
    assert (status, lines) == (130, SENTENCE)


def test_a_program_that_calls_a_command_keeps_its_handlers(capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped, command.one_sentence():
        raise KeyboardInterrupt
    assert stopped.value.code == interrupts.INTERRUPTED
    assert capsys.readouterr().err.splitlines() == SENTENCE
    assert signal.getsignal(signal.SIGINT) is before
