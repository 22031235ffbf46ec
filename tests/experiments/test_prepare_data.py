"""The command: report, help, one sentence and exit status 2 for a mistake."""

from __future__ import annotations

import pathlib

import pytest

from experiments.prepare_data.__main__ import main
from flown_jax.data import image_sets
from tests.data import raw_files


def _run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    monkeypatch.setattr("sys.argv", ["prepare_data", *map(str, arguments)])
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    output = capsys.readouterr()
    return status, output.out, output.err


def test_command_converts_and_reports(tmp_path, monkeypatch, capsys):
    raw_files.write_idx(tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(monkeypatch, capsys, "mnist", "--from=raw")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "mnist: found idx files, 4 files",
        "  train: 20 of 60,000 official images",
        "  test: 20 of 10,000 official images",
        "  wrote data/mnist/3.0.1",
    ]
    assert len(image_sets.load("mnist", "train").labels) == 20
    _, out, _ = _run(monkeypatch, capsys, "mnist", "--from=raw")
    assert "is there already" in out
    _, out, _ = _run(monkeypatch, capsys, "mnist", "--from", "raw", "--to=data", "--overwrite")
    assert "wrote" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mnist",), "error: the following arguments are required: --from; see --help."),
        (("mnist", "--from=x", "--form=y"), "error: unrecognized arguments: --form=y; see --help."),
        (("mnist", "--from=nowhere"), "error: there is no folder nowhere; --from names"),
        (("minst", "--from=."), "error: there is no image set 'minst'; the sets at hand are mnist"),
        (("mnist", "--from=gs://x/y"), "error: gs://x/y is not on a local disk"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(sentence) and err.count("\n") == 1
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_help_lists_sets_and_options(monkeypatch, capsys):
    status, out, _ = _run(monkeypatch, capsys, "--help")
    assert status == 0
    assert "mini_imagenet" in out and "--overwrite" in out and "needs a folder of its own" in out


def test_a_name_that_no_disk_takes_is_one_sentence(tmp_path, monkeypatch, capsys):
    raw_files.write_idx(tmp_path / "raw")
    for name, source, target in (
        ("mnist", "raw", "a" * 300),
        ("mnist", "a" * 300, "data"),
        ("a" * 300, "raw", "data"),
    ):
        status, out, err = _run(
            monkeypatch, capsys, name, f"--from={tmp_path / source}", f"--to={tmp_path / target}"
        )
        assert (status, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
