"""A config cut to a few steps a stage: every variant stays valid, and a run says what it costs."""

from __future__ import annotations

import json
import sys
import types

import pytest

from configs import adapt, fsl, predict_accuracy, reconstruct, retrieval, trajectory, unconditional
from configs import zoo as zoos
from experiments import command, fields, trial, zoo_check
from experiments.adapt import check as adapt_check
from experiments.command import fields_of
from experiments.fewshot import check as fewshot_check
from experiments.predict_accuracy import __main__ as reader
from experiments.predict_accuracy import check as predict_check
from experiments.reconstruct import check as reconstruct_check
from experiments.retrieval import check as retrieval_check
from experiments.train_trajectory import check as trajectory_check
from experiments.train_zoo import __main__ as train_zoo
from experiments.train_zoo import check as zoos_check
from experiments.unconditional import check as unconditional_check
from flown_jax.errors import UserError
from tests.experiments.predict_accuracy import little
from tests.experiments.reconstruct import little as reconstructed
from tests.parity.fixtures import ROOT

CONFIGS = {
    fsl: (
        (
            *("default", "tiny", "unet", "mini_imagenet", "mini_imagenet_tiny", "paper"),
            *("published", "published_mini_imagenet"),
        ),
        fewshot_check,
    ),
    retrieval: (("default", "tiny", "real", "init", "published", "paper"), retrieval_check),
    unconditional: (unconditional.variants(), unconditional_check),
    adapt: (adapt.variants(), adapt_check),
    zoos: (zoos.variants(), zoos_check),
    trajectory: (trajectory.variants(), trajectory_check),
    predict_accuracy: (("default", "tiny"), predict_check),
    reconstruct: (("trajectory", "seeds", "tiny"), reconstruct_check),
}

SEEN = set()  # designs and solvers that were checked: many cells have the same


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Zoos for commands that have none of their own."""
    folder = tmp_path_factory.mktemp("zoos")
    return {
        predict_accuracy: little.write(folder / "read"),
        reconstruct: reconstructed.write(folder / "kept"),
    }


@pytest.fixture
def at_hand(monkeypatch):
    """Image sets count as prepared, and targets' zoos are those that are trained here."""
    for module in (fields, retrieval_check):
        monkeypatch.setattr(module.image_sets, "at_hand", lambda *given: True)
    monkeypatch.setattr(zoo_check, "check_images", lambda *given: None)
    check, sample = unconditional_check._check_design, unconditional_check.sample

    def once(config, spec):
        parts = [{**config.codec, "recipe": config.codec.recipe.batch}, config.velocity]
        mark = repr([parts, config.flow.source, spec.fingerprint])
        if mark not in SEEN:
            check(config, spec)
        SEEN.add(mark)

    def sample_once(velocity, x, **how):
        if repr(how) not in SEEN:
            sample(velocity, x, **how)
        SEEN.add(repr(how))
        return types.SimpleNamespace(x1=x)

    monkeypatch.setattr(unconditional_check, "_check_design", once)
    monkeypatch.setattr(unconditional_check, "sample", sample_once)


def counts(value):
    return [v for v in (value if isinstance(value, tuple) else (value,)) if type(v) is int]


@pytest.mark.parametrize("module", CONFIGS, ids=lambda module: module.__name__)
def test_every_variant_stays_valid_and_is_short(module, folders, at_hand):
    (variants, check), steps = CONFIGS[module], 2
    for variant in variants:
        config = module.get_config(variant)
        cuts = trial.cut(config, steps)
        if module in folders:
            config.zoo = str(folders[module])
        if module in (unconditional, adapt):
            for target in config.targets.values():
                target.zoo = ""
        check.check(config)
        kept = ["solver_steps", "adjoint.steps", "cut.steps"]
        kept += ["sampling.steps"] if "adapt" in config else []  # trained through
        for field, value in fields_of(config):
            last = field.split(".")[-1]
            if "sizes." in field or field.endswith(tuple(kept)):
                assert field not in cuts
            elif last in ("steps", "save_every", "few_steps", "nfe_curve") and field[:5] != "base.":
                assert max(counts(value)) <= steps, field
            elif "epochs" in last and (last != "epochs" or "." in field):
                assert max(counts(value)) <= 1, field
            elif last in ("batch", "channels", "latent_shape", "width", "networks", "mixes"):
                small = ("networks", "evaluation.networks", "fresh.networks")
                assert field not in cuts or field in small, field
        assert config.variant == f"{variant}-try{steps}" == cuts["variant"][1]
        again = trial.cut(config, steps)
        assert not again, f"{variant} is cut once more: {again}"


def test_what_is_cut_of_the_papers_sizes():
    config = fsl.get_config("paper")
    cuts = trial.cut(config, 2)
    assert cuts["codec.recipe.steps"] == (39_100, 2) and cuts["tasks.train"] == (50_000, 16)
    assert cuts["data.images_per_class"] == (0, 10)  # 5 shots and 5 queries
    assert cuts["share"] == (True, False)
    assert config.caml.recipe.warmup == 0 and config.caml.recipe.validate_every == 2
    assert config.flow.recipe.validate_every == 0 and config.flow.ensemble.recipe.steps == 0
    assert config.flow.recipe.batch == 128 and config.velocity.sizes.model_channels == 128
    config = retrieval.get_config("paper")
    cuts = trial.cut(config, 2)
    assert "epochs" not in cuts and cuts["initialise.epochs"] == ((0, 1, 5, 25, 50), (0, 1))
    config = retrieval.get_config("default")
    assert trial.cut(config, 2)["epochs"] == ((6,), (1,))  # of zoos that are trained here
    config = unconditional.get_config("paper_cnn_cifar10_vae")
    assert trial.cut(config, 2)["trajectory.epochs"] == (0, 1)  # 0 were the variant's own hundred
    config = adapt.get_config("paper_cnn_cifar10_stl10_vae")
    assert "sampling.steps" not in trial.cut(config, 2)


def test_a_wrong_value_is_left_to_the_commands_own_sentence():
    config = fsl.get_config("tiny")
    with config.ignore_type():
        config.flow.recipe.steps, config.tasks.train = "many", 2.5
        config.sampling.nfe_curve = ("one",)
    trial.cut(config, 2)
    with pytest.raises(UserError, match="it must be a whole number"):
        fewshot_check.check(config)


def test_reports_of_cut_runs_say_so():
    assert trial.remark("paper") is trial.remark("") is trial.remark("my-trying") is None
    assert "--try_steps=12:" in trial.remark("paper-try12")


def call(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    monkeypatch.chdir(ROOT)
    main()


def test_a_run_ends_with_what_its_stages_cost(monkeypatch, capsys, tmp_path, folders):
    work, zoo = tmp_path / "run", folders[predict_accuracy]
    common = ["--config=configs/predict_accuracy.py:tiny", f"--config.zoo={zoo}", "--try_steps=2"]
    # What is set is not cut.
    common += ["--config.mlp.recipe.steps=3", f"--workdir={work}"]
    call(monkeypatch, reader.main, *common)
    shown = capsys.readouterr().out
    assert "cut to 2 steps a stage: " in shown and "s/step" in shown
    found = json.loads((work / trial.FILE).read_text())
    assert found["try_steps"] == 2 and found["cut"]["encoder.recipe.steps"] == [4, 2]
    assert "mlp.recipe.steps" not in found["cut"]
    steps = {row["name"]: row["steps"] for row in found["stages"]}
    assert {3, 2} == set(steps.values())
    for row in found["stages"]:
        assert row["step_seconds"] >= 0 and row["batch"] == 8 and row["parameters"] > 10
        assert row["name"] in shown and row["memory_gib"] > 0.01
    config = json.loads((work / "config.json").read_text())
    assert config["variant"] == "tiny-try2" and config["encoder"]["recipe"]["steps"] == 2
    report = (work / "results.md").read_text()
    assert "cut by --try_steps=2" in report
    # Once more, with nothing to train: the figures stay.
    call(monkeypatch, reader.main, *common)
    assert json.loads((work / trial.FILE).read_text())["stages"] == found["stages"]


def test_a_zoos_training_is_told_too_and_lies_beside_a_real_run(monkeypatch, capsys, tmp_path):
    def tiny(name, config, workdir, *more):
        seen.update(workdir=workdir, config=config)
        raise UserError("enough")

    seen = {}
    monkeypatch.setattr(trial, "run", lambda function, *given: tiny("", *given))
    with pytest.raises(SystemExit):
        call(monkeypatch, train_zoo.main, "--config=configs/zoo.py:mnist_short", "--try_steps=3")
    assert seen["workdir"] == "workdirs/train_zoo-mnist_short-try3"
    assert (seen["config"].networks.count, seen["config"].recipe.epochs) == (8, 1)


def test_a_run_that_fails_tells_what_it_had_trained(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")

    def broken(config, workdir):
        raise UserError("no memory")

    with pytest.raises(UserError):
        trial.run(broken, fsl.get_config("tiny"), str(tmp_path), 2, {})
    assert "until the run failed" in capsys.readouterr().out
    assert json.loads((tmp_path / trial.FILE).read_text())["stages"] == []


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_is_one_sentence(monkeypatch, capsys, value):
    monkeypatch.setattr(sys, "argv", ["command", f"--try_steps={value}"])
    with pytest.raises(SystemExit) as ended:
        command.run(
            "experiments.fewshot", "", str(ROOT / "configs" / "fsl.py"), lambda *given: None
        )
    assert ended.value.code == 2
    assert f"--try_steps={value}: a whole number from 1" in capsys.readouterr().err
