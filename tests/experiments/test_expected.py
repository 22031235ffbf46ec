"""What is said of a job's time: for jobs that there are, in words, and first."""

from __future__ import annotations

import sys

import pytest

from experiments import command, expected
from experiments.about import __main__ as about


@pytest.mark.parametrize(("name", "variant"), expected.SECONDS)
def test_a_job_that_was_timed_is_one_of_the_configs(name, variant):
    file = command.config_file(name)
    assert command.load_config(f"{file}:{variant}").variant == variant
    assert "about" in expected.sentence(f"experiments.{name}", variant)


def test_the_sentence_has_the_device_and_the_time_where_it_was_measured():
    found = expected.sentence("experiments.fewshot", "default")
    assert found.startswith("on cpu (") and found.endswith("about 4 to 7 minutes on two CPU cores")
    for variant in ("paper", None):
        found = expected.sentence("experiments.fewshot", variant)
        assert "was not timed: --try_steps=2 tells" in found and "minute" not in found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((90,), "90 seconds"),
        ((130,), "2 minutes"),
        ((640,), "11 minutes"),
        ((239, 422), "4 to 7 minutes"),
        ((100.4, 119), "2 minutes"),
    ],
)
def test_times_are_words(seconds, words):
    assert expected.minutes(*seconds) == words


def test_a_config_command_says_it_before_it_works(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments.fewshot", "--config=configs/fsl.py:tiny"])
    command.run("experiments.fewshot", "", "", lambda config, workdir: print("works"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == expected.sentence("experiments.fewshot", "tiny") and second == "works"


def test_about_scales_the_times_and_says_what_is_here(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments.about"])
    monkeypatch.setattr(expected, "factor", lambda: 2.0)
    about.main()
    shown = capsys.readouterr().out
    for words in ("flown_jax", "jax ", "device: cpu", "cores: ", "memory: ", "compilation cache: "):
        assert words in shown
    assert "2.0 times as long" in shown and "about 8 to 14 minutes" in shown
    assert "on two CPU cores" in about.times(None)[0] and "4 to 7 minutes" in str(about.times(None))


def test_the_piece_of_work_is_timed():
    assert 0.05 < expected.factor(0.05) < 50
