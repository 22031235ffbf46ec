"""The command that describes a zoo: what it prints, where its picture goes, what it refuses."""

from __future__ import annotations

import sys

import pytest

from experiments.zoo_info.__main__ import main
from flown_jax.evaluation import zoo_tables
from flown_jax.weights import zoo
from tests.evaluation.test_figures import picture
from tests.weights import small

SPEC = small.spec()


@pytest.fixture
def folder(tmp_path):
    """A zoo of seeds 0 to 4 at epochs 1, 2, 3 and 9; seeds 3 and 4 are held out."""
    path = tmp_path / "mine"
    zoo.create(path, SPEC, dataset="digits", recipe={"optimizer": "adam", "hash": "f" * 64})
    for epoch in (1, 2, 3, 9):
        rows = small.rows(range(5), epoch, held_out=(3, 4))
        zoo.add(path, small.vectors(range(5), SPEC.size, epoch), rows)
    return path


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments.zoo_info", *map(str, arguments)])
    main()


def test_a_zoo_is_described_within_80_columns(monkeypatch, capsys, folder):
    call(monkeypatch, folder)
    shown = capsys.readouterr().out
    # Lines of the first table are as long as the recipe.
    tables = shown[shown.index("accuracies") : shown.index("L2 distances")].splitlines()
    assert max(len(line.rstrip()) for line in tables) <= 80
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for text in (
        "data set digits",
        "activation tanh",
        "inputs channels 1, mean [0.1307], size 8, std [0.3081]",
        f"a vector {SPEC.size} weights in 6 tensors",
        "vectors 12 training, 8 held out",
        "epochs 1-3, 9",
        "recipe hash ffffffffffff…, optimizer adam",
        "9 training test 3 50.10 ± 0.10 50.00 50.20",
        "9 held out test 2 50.35 ± 0.07 50.30 50.40",
        "L2 distances, at the last epoch of each",
    ):
        assert text in lines
    assert sum(line.startswith("module_list.0.weight 2x1x3x3 ") for line in lines) == 1
    heads = ("among training", "among held out", "held out to training")
    assert all(sum(line.startswith(head) for line in lines) == 1 for head in heads)
    assert picture(folder.parent / "mine-info.png").size > 100_000


def test_the_picture_goes_where_it_is_wanted(monkeypatch, capsys, folder, tmp_path):
    call(monkeypatch, folder, f"--output={tmp_path / 'new' / 'figures'}")
    assert picture(tmp_path / "new" / "figures" / "mine-info.png").size > 100_000
    assert not (tmp_path / "mine-info.png").exists()
    assert "figures/mine-info.png" in capsys.readouterr().out


def test_of_many_epochs_some_are_shown(tmp_path):
    zoo.create(tmp_path, SPEC, dataset="", recipe={})
    for epoch in range(51):
        zoo.add(tmp_path, small.vectors([1], SPEC.size, epoch), small.rows([1], epoch))
    found = zoo.load(tmp_path)
    epochs = [int(row[0]) for row in zoo_tables.accuracy_rows(found)]
    assert len(epochs) == 12 and epochs[0] == 0 and epochs[-1] == 50 and epochs == sorted(epochs)
    # A single network: its own epochs are compared.
    assert zoo_tables.distance_rows(found)[0][0] == "among training"
    assert zoo_tables.distance_rows(found.select([0])) == [["a single network", *[""] * 6]]


def test_mistakes_are_one_sentence(monkeypatch, capsys, folder, tmp_path):
    zoo.create(tmp_path / "empty", SPEC, dataset="", recipe={})
    shard = folder / "weights-0001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    for arguments, words in (
        ([tmp_path / "nothing"], "there is no zoo in"),
        ([tmp_path / "empty"], "has no networks yet"),
        ([folder], "weights-0001.safetensors has changed"),
        ([], "PATH"),
        ([folder, "--out=x"], "--out=x"),
        ([tmp_path / "nothing", "--output"], "--output"),
    ):
        with pytest.raises(SystemExit) as ended:
            call(monkeypatch, *arguments)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
        assert words in printed.err and not printed.out


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_shown(
    monkeypatch, capsys, folder, tmp_path
):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit):
            call(monkeypatch, folder, f"--output={target}")
        printed = capsys.readouterr()
        assert "file" in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_help_says_what_the_command_does(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--help")
    assert ended.value.code == 0 and "--output FOLDER" in capsys.readouterr().out
