"""Zoos that configs name: found in the repository, and told where they lie elsewhere."""

from __future__ import annotations

import pytest

from experiments import given_zoo
from flown_jax.errors import UserError
from tests.parity.fixtures import ROOT


def test_a_zoo_of_the_repository_is_found_there_and_told_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert len(given_zoo.load("zoos/mnist_short", epochs=(6,))) == 100
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="zoos/mnist_short: the small zoos lie in .* repository"):
        given_zoo.load("zoos/mnist_short")
    (tmp_path / "zoos").mkdir()
    for folder in ("zoos/mine", "elsewhere"):
        with pytest.raises(UserError, match=f"no zoo in {folder}: it has no manifest"):
            given_zoo.load(folder)
