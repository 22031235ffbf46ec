"""The experiment end to end at its smallest: results, restarts, kills, and the model in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.compare import load, mean_rows
from flown_jax import MetaModel
from flown_jax.errors import UserError
from tests.parity.fixtures import ROOT

METHODS = {
    "chance",
    "class_mean",
    "cosine_class_mean",
    "linear_probe",
    "ridge",
    "logistic_regression",
    "vae_reconstruction",
    "caml",
    "caml_and_base",
    "regression",
    "regression_noisy_ensemble",
    "ddpm_mean",
    "ddpm_ensemble",
    "ddpm_top3_support",
    "flown_mean",
    "flown_ensemble",
    "flown_top3_support",
    "flown_top3_query",
    "flown_other_support",
}
MAIN = "5-way 1-shot"
PROGRAMS = 530  # that a whole tiny run compiles, with the one-operation ones of setting it up
# In their order: what lies in the run's folder, and what lies beside it.
STAGES = ("data", "caml", "codec", "flow", "ddpm", "regression", "model", "evaluation-5-way-1-shot")
SHARED = {
    "images",
    "backbone",
    "features-classes",
    "features-out_of_distribution",
    "baselines",
    "heads",
}


def command(workdir, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments.fewshot",
        "--config=configs/fsl.py:tiny",
        f"--workdir={workdir}",
        *more,
    ]


def environment(workdir) -> dict[str, str]:
    """Of a run: compilation takes most of it, so a program is compiled once for all runs."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def beside(workdir, name: str):
    """A copy of a run in the same folder, with the same shared results, to be finished again."""
    copy = workdir.with_name(name)
    shutil.copytree(workdir, copy)
    (copy / "results.json").unlink()
    return copy


def shared_results(workdir) -> dict[str, int]:
    """When the shared results were written."""
    found = sorted((workdir.parent / "shared").glob("*/stage.json"))
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def run(workdir, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *more),
        cwd=ROOT,
        env=environment(workdir),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run and what it printed."""
    workdir = tmp_path_factory.mktemp("fewshot") / "run"
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_programs_are_compiled_once(finished):
    """A program for each network, loss and size that there is, and none for a task or a part."""
    workdir, _ = finished
    compiled = list((workdir.parent / "compiled").glob("*-cache"))
    assert 100 < len(compiled) <= PROGRAMS


def test_the_results_are_tidy_and_complete(finished):
    workdir, printed = finished
    results = json.loads((workdir / "results.json").read_text())
    assert {"experiment", "variant", "seed", "fingerprint", "seconds", "peak_memory_gib"} <= set(
        results
    )
    assert results["experiment"] == "fewshot" and results["variant"] == "tiny"
    sets = {"in_distribution", "out_of_distribution"}
    metrics = {"accuracy", "nll", "ece", "accuracy_minus_probe", "nll_minus_regression"}
    metrics |= {"accuracy_minus_logistic", "accuracy_minus_caml_and_base"}
    found = {(row["method"], row["set"], row["metric"]) for row in results["rows"]}
    assert {(m, s, k) for m in METHODS for s in sets for k in metrics} <= found
    for row in results["rows"]:
        assert row["over"] == "tasks" and len(row["unit"]) == 64
        assert row["table"] == MAIN
        assert np.isfinite(row["value"]) and row["ci95"] >= 0 and row["n"] == 20
    for method in METHODS:
        assert method in printed
    for name in ("results.md", "report.html", "config.json", "environment.json", "metrics.jsonl"):
        assert (workdir / name).stat().st_size > 0
    assert len(list((workdir / "figures").glob("*.png"))) >= 5
    assert len({(row["set"], row["unit"]) for row in results["rows"]}) == len(sets)
    text = (workdir / "results.md").read_text()
    assert text.count("± is the half width of the 95 % interval over 20 tasks.") == 3
    assert f"## {MAIN}: paired differences of `flown_ensemble`" in text
    assert f"## {MAIN}. {results['titles']['out_of_distribution']}" in text
    assert printed.count(MAIN) == 1 and set(results["titles"]) == sets


def test_stages_lie_in_the_run_or_beside_it(finished):
    workdir, _ = finished
    assert {path.name for path in (workdir / "stages").iterdir()} == set(STAGES)
    assert {name.rsplit("-", 1)[0] for name in shared_results(workdir)} == SHARED


def test_the_same_line_again_shows_what_is_there(finished):
    workdir, printed = finished
    before = (workdir / "results.json").read_bytes()
    again = run(workdir)
    assert again.returncode == 0
    assert again.stdout == printed
    assert (workdir / "results.json").read_bytes() == before


def test_another_config_is_refused_by_the_name_of_the_field(finished):
    workdir, _ = finished
    before = (workdir / "results.json").read_bytes()
    refused = run(workdir, "--config.codec.recipe.steps=30")
    assert refused.returncode == 2
    lines = refused.stderr.strip().splitlines()
    assert lines[-1].startswith("error: stage codec")
    assert "recipe.steps = 20, and now has" in lines[-1] and "Traceback" not in refused.stderr
    assert (workdir / "results.json").read_bytes() == before


def test_three_lines_give_networks_for_a_new_task(finished):
    workdir, _ = finished
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    model = MetaModel.restore(workdir)
    networks = model.generate(images, ["a", "b", "c", "d", "e"], samples=4)
    probabilities = networks.predict(images)
    assert probabilities.shape == (5, 5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)


def test_a_damaged_stage_is_named(finished):
    copy = beside(finished[0], "damaged")
    outputs = copy / "stages" / "model" / "outputs.safetensors"
    outputs.write_bytes(outputs.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"outputs\.safetensors is missing or has changed"):
        MetaModel.restore(copy)
    refused = run(copy)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("error: stage model is damaged")


@pytest.mark.parametrize("stage", ["flow", "evaluation-5-way-1-shot"])
def test_a_killed_run_ends_with_the_same_rows(finished, stage):
    # Stages before the killed one are the finished run's: a finished stage is never done again, so
    # they are what an unbroken run would have made.
    workdir, _ = finished
    copy, before = beside(workdir, f"killed-{stage}"), shared_results(workdir)
    for name in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(copy / "stages" / name)
    process = subprocess.Popen(
        command(copy),
        cwd=ROOT,
        env=environment(copy),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = copy / "stages" / stage / "running.json"
    limit = time.monotonic() + 240
    while not running.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    unfinished = running.exists() and not (copy / "stages" / stage / "stage.json").exists()
    assert unfinished, "the run was not killed inside the stage"
    done = run(copy)
    assert done.returncode == 0, done.stderr
    rows, expected = (
        json.loads((path / "results.json").read_text())["rows"] for path in (copy, workdir)
    )
    assert rows == expected
    assert shared_results(workdir) == before


def test_runs_are_compared_by_their_means(finished):
    workdir, _ = finished
    results = load(workdir)
    # Runs of other tasks are independent; of the same ones a mean is as uncertain as each.
    for tasks, factor, count in (({"unit": "others"}, 0.5**0.5, 2), ({}, 1.0, 1)):
        rows = [{**r, "value": r["value"] + 1, **tasks} for r in results["rows"]]
        means = mean_rows([results, {**results, "seed": 1, "rows": rows}])
        for row, mean in zip(results["rows"], means, strict=True):
            assert mean["value"] == pytest.approx(row["value"] + 0.5)
            assert mean["ci95"] == pytest.approx(row["ci95"] * factor)
            assert mean["n"] == count * row["n"]
    with pytest.raises(UserError, match="same seed"):
        mean_rows([results, results])
