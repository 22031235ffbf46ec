"""Finished runs that are run again: what stands is shown where it is still what the stages give."""

from __future__ import annotations

import json
import pathlib

import pytest

from configs import fsl, retrieval
from experiments import report
from experiments.fewshot import __main__ as fewshot
from experiments.retrieval import __main__ as whole_networks
from experiments.stages import Stages
from flown_jax.errors import UserError
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.stages import StageResult
from flown_jax.training.workdir import Workdir

RESULTS = {"rows": [{"value": 0.5}], "fingerprint": "aa", "seconds": 1.0, "environment": {"of": 1}}


def test_results_stand_while_they_are_what_the_stages_give(tmp_path):
    assert report.standing(tmp_path, RESULTS) is None
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    today = {**RESULTS, "seconds": 3.0, "environment": {"of": 2}, "peak_memory_gib": 1.0}
    assert report.standing(tmp_path, today) == RESULTS
    assert report.standing(tmp_path, today, "report.html") is None
    (tmp_path / "report.html").touch()
    assert report.standing(tmp_path, today, "report.html") == RESULTS
    for other in ({"rows": []}, {"fingerprint": "bb"}, {"config": {}}):
        assert report.standing(tmp_path, {**today, **other}) is None
    for text in ("{", "[]", ""):
        (tmp_path / "results.json").write_text(text)
        assert report.standing(tmp_path, today) is None


def value(context):
    return {"value": context.inputs.of}


def test_the_fingerprint_of_a_run_is_that_of_all_its_stages(tmp_path):
    marks = []
    for i, (one, two) in enumerate(((1, 1), (1, 1), (1, 2), (2, 1))):
        with Workdir(tmp_path / str(i), {}) as work:
            stages = Stages(work)
            stages("one", {"of": one}, value)
            stages.common("two", {"of": two}, value)
            before = stages.fingerprint
            # What is looked at counts by what is found, not by when.
            stages.each("looked", {"of": i}, value)
            assert stages.fingerprint == before
            marks.append(before)
    assert marks[0] == marks[1] and len(set(marks)) == 3


@pytest.fixture(params=[(fewshot, fsl), (whole_networks, retrieval)], ids=["heads", "networks"])
def finished(request, tmp_path):
    """A command, its config, and a folder that looks finished."""
    command, configs = request.param
    config = configs.get_config("tiny")
    with Workdir(tmp_path / "run", plain_values(config)):
        (tmp_path / "run" / "results.json").write_text(json.dumps(RESULTS))
    return command, config, tmp_path / "run"


def test_a_finished_run_goes_through_its_stages(finished, monkeypatch):
    command, config, folder = finished

    def compute(config, work):
        raise UserError("stage data was finished with other images.")

    monkeypatch.setattr(command, "compute", compute)
    with pytest.raises(UserError, match="with other images"):
        command.run(config, str(folder))


def test_an_encoder_whose_file_has_gone_is_told_in_a_finished_run(tmp_path, monkeypatch):
    config = fsl.get_config("tiny")
    config.encoder.update(kind="resnet12", weights=str(tmp_path / "gone.safetensors"))
    with Workdir(tmp_path / "run", plain_values(config)):
        (tmp_path / "run" / "results.json").write_text(json.dumps(RESULTS))
    data = StageResult("data", "", pathlib.Path(), {}, 0.0)
    monkeypatch.setattr(fewshot, "describe_images", lambda *_: data)
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        fewshot.run(config, str(tmp_path / "run"))
