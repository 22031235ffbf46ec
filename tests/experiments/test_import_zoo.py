"""The import command: zoos that can be loaded, sentences for mistakes, nothing half-made."""

from __future__ import annotations

import os

import numpy as np
import pytest

from experiments import import_zoo
from flown_jax.torch_import.files import write_state_dict
from flown_jax.weights import zoo
from tests.weights.importers import trajectory, trials


def call(capsys, *arguments: str) -> str:
    """What the command prints."""
    import_zoo.main(arguments)
    return capsys.readouterr().out


def refusal(capsys, *arguments: str) -> str:
    """The sentence that the command ends with."""
    with pytest.raises(SystemExit) as ended:
        import_zoo.main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tune_zoo_mnist_uniform"
    return trials.write_zoo(folder, write_state_dict)


def test_a_model_zoo_becomes_a_zoo(capsys, source, tmp_path):
    target = tmp_path / "zoos" / "mnist"
    text = call(
        capsys, "model_zoo", f"--from={source}", f"--to={target}", "--epochs=46-50", "--held-out=.4"
    )
    assert "found: 37 models of cnn with 2,464 weights, for mnist" in text
    assert "skipped: 5" in text and trials.trial_name(4) in text and "epoch 48: there is no" in text
    loaded = zoo.load(target)
    assert loaded.dataset == "mnist" and loaded.recipe["optim::lr"] == 0.0003
    assert loaded.spec.inputs_dict["mean"] == [0.1307]
    held_out = len(zoo.load(target, split="held_out"))
    assert f"wrote: {target}, {37 - held_out} to train on and {held_out} held out" in text
    for row, weights in zip(loaded.rows(), loaded.weights, strict=True):
        expected = trials.vector(trials.state(row["seed"], row["epoch"]))
        np.testing.assert_array_equal(weights, expected)
        assert row["test_accuracy"] == trials.accuracy(row["seed"], row["epoch"])
    assert os.listdir(target.parent) == ["mnist"]


def test_nets_and_epochs_are_drawn(capsys, source, tmp_path):
    arguments = (f"--from={source}", "--nets=3", "--per-net=1", "--epochs=0,46-50")
    for name in ("a", "b"):
        call(capsys, "model_zoo", *arguments, f"--to={tmp_path / name}", "--seed=3")
    first, second = zoo.load(tmp_path / "a"), zoo.load(tmp_path / "b")
    assert len(set(first.table["trial"])) == len(first) == 3
    assert first.table == second.table


def test_a_trajectory_becomes_a_zoo_with_its_host(capsys, tmp_path):
    source = trajectory.write(tmp_path / "source", [trajectory.part(i) for i in range(3)])
    target, host = tmp_path / "zoo", tmp_path / "host.pth"
    arguments = ("pdiff", f"--from={source}", f"--to={target}")
    sizes = '--sizes={"width": 2}'
    sentence = refusal(capsys, *arguments, "--model=resnet18", sizes)
    assert "parts of a network; give --base" in sentence and not target.exists()
    write_state_dict(host, trajectory.whole_state(7))
    inputs = '{"size": 32, "channels": 3, "mean": [0.5], "std": [0.25]}'
    text = call(capsys, *arguments, f"--base={host}", f"--inputs={inputs}")
    assert "for cifar100" in text and "test accuracy: mean 0.7001, from 0.7000 to 0.7002" in text
    loaded = zoo.load(target)
    host_values = loaded.spec.flatten(loaded.base)
    np.testing.assert_array_equal(host_values, trials.vector(trajectory.part(7)))
    assert loaded.spec.inputs_dict["std"] == [0.25]


def test_state_dicts_become_a_zoo(capsys, tmp_path):
    source = tmp_path / "nets"
    source.mkdir()
    for seed in range(3):
        write_state_dict(source / f"net{seed}.pt", trials.state(seed, 0))
    arguments = ("state_dicts", f"--from={source}", f"--to={tmp_path / 'zoo'}")
    assert "give --dataset" in refusal(capsys, *arguments, '--sizes={"activation": "silu"}')
    text = call(capsys, *arguments, '--sizes={"activation": "silu"}', "--dataset=mnist")
    assert "--inputs was not given" in text and "skipped: 0" in text
    loaded = zoo.load(tmp_path / "zoo")
    assert loaded.spec.sizes_dict["activation"] == "silu"
    assert loaded.table["file"] == ["net0.pt", "net1.pt", "net2.pt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs=50-x"], "'50-x' is no range of epochs, such as 46-50"),
        (["--epochs=50-46"], "has no epochs in it"),
        (["--nets=0"], "'0' is no whole number above 0"),
        (["--nets=all"], "'all' is no whole number"),
        (["--held-out=1.5"], "held_out is 1.5, where a share"),
        (["--held-out=nan"], "'nan' is no number of at least 0"),
        (["--weight-threshold=-1"], "'-1' is no number of at least 0"),
        (["--seed=-5"], "'-5' is no whole number of at least 0"),
        (["--epochs=0-99999999999"], "has more than 1,000,000 epochs"),
        (['--sizes={"dropout": NaN}'], "is no JSON: NaN is no number"),
        (["--inputs=" + "[" * 9999], "is no JSON"),
        (["--key=model"], "model_zoo takes no --key"),
        (["--inputs=28"], "is no JSON object"),
        (["--inputs={size}"], "is no JSON"),
        (['--inputs={"size": 28}'], "preprocessing lacks the field 'channels'"),
        (["--model=cnn"], "model_zoo takes no --model"),
        (["--epoch=4"], "unrecognized arguments: --epoch=4"),
        (["--activation=relu"], "has no net of activation relu"),
        (["--epochs=20"], "none has an epoch that is asked for"),
        (["--from=nowhere"], "there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(capsys, source, tmp_path, arguments, sentence):
    given = ["model_zoo", f"--from={source}", f"--to={tmp_path / 'zoo'}", *arguments]
    assert sentence in refusal(capsys, *given)
    assert not list(tmp_path.iterdir())


def test_formats_and_folders_are_needed(capsys, source, tmp_path):
    assert "invalid choice: 'ray'" in refusal(capsys, "ray", f"--from={source}", "--to=x")
    assert "--to" in refusal(capsys, "model_zoo", f"--from={source}")
    (tmp_path / "zoo").mkdir()
    sentence = refusal(capsys, "model_zoo", f"--from={source}", f"--to={tmp_path / 'zoo'}")
    assert "there is something at" in sentence and not list((tmp_path / "zoo").iterdir())


def test_a_failed_write_leaves_nothing(capsys, source, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zoo, "add", full)
    sentence = refusal(capsys, "model_zoo", f"--from={source}", f"--to={tmp_path / 'zoo'}")
    assert "no space left on the device" in sentence
    assert not list(tmp_path.iterdir())
