"""The command that stands below a page makes its runs again."""

from __future__ import annotations

from configs import fsl, zoo
from experiments.publish.commands import command_line, seed_flag
from flown_jax.training.fingerprints import plain_values


def test_the_command_has_what_the_variant_has_not():
    config = fsl.get_config("tiny")
    config.flow.recipe.steps = 21
    config.encoder.weights = "/home/someone/mine.safetensors"
    config.seed = 3
    run = {"experiment": "fewshot", "variant": "tiny", "config": plain_values(config)}
    line, unlike = command_line(run)
    start = "python -m experiments.fewshot --config=configs/fsl.py:tiny"
    assert set(line.removeprefix(start).split()) == {
        "--config.flow.recipe.steps=21",
        "--config.encoder.weights=PATH/mine.safetensors",
    }
    assert unlike == []
    run["config"]["of_before"] = 1
    assert command_line(run)[1] == ["of_before"]
    # A config file of one's own.
    assert command_line({**run, "variant": "mine"})[0].endswith("--config=FILE:mine")


def test_an_audit_has_its_own_arguments():
    config = {"zoo_a": "/home/someone/a", "zoo_b": "b", "data": "mnist", "model": None, "seed": 3}
    run = {"experiment": "novelty", "variant": "", "config": config}
    assert command_line(run)[0] == "python -m experiments.novelty PATH/a b --data=mnist"
    assert seed_flag("novelty") == "--seed"


def test_a_zoo_begins_with_its_first_seed():
    assert seed_flag("train_zoo") == "--config.networks.first_seed"
    config = plain_values(zoo.get_config("tiny"))
    config["networks"]["first_seed"] += 5
    run = {"experiment": "train_zoo", "variant": "tiny", "config": config}
    assert command_line(run)[0] == "python -m experiments.train_zoo --config=configs/zoo.py:tiny"
