"""The workflow of continuous integration: it parses, and does what `.ci/run` does."""

from __future__ import annotations

import os
import re

import pytest

from tests.parity.fixtures import ROOT


def test_the_workflow_runs_the_script_on_both_pythons():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = found["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_version_stands_in_one_place():
    import flown_jax

    text = (ROOT / "setup.py").read_text()
    assert flown_jax.__version__ not in text and "version=VERSION" in text
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", flown_jax.__version__)
