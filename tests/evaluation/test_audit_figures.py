"""The figures of an audit: every sample and group is drawn, over orders of magnitude as well."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.evaluation import audit_figures, figures
from flown_jax.evaluation.audit_figures import accuracy_against


def group(count, accuracy, nearest, diversity, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "accuracy": np.clip(rng.normal(accuracy, 0.01, count), 0, 1),
        "nearest": nearest * rng.uniform(0.8, 1.2, count),
        "diversity": diversity * rng.uniform(0.9, 1.1, count),
    }


def drawn(monkeypatch, tmp_path, samples, families, **options):
    """The figure's panels."""
    kept = []
    monkeypatch.setattr(
        audit_figures, "save_figure", lambda f, p: (kept.append(f), figures.save_figure(f, p))
    )
    accuracy_against(tmp_path / "deep" / "audit.png", samples, families, **options)
    assert (tmp_path / "deep" / "audit.png").stat().st_size > 10_000
    return kept[0], kept[0].axes


def test_every_group_and_sample_is_drawn(monkeypatch, tmp_path):
    samples = {
        "originals": group(20, 0.95, 1.0, 1.0),
        "flown": group(30, 0.94, 1.2, 0.9),
        "gaussian": group(10, 0.1, 300.0, 2.0),
    }
    samples["gaussian"]["nearest"][0] = np.nan  # a network that is not finite
    families = {"originals": "networks", "flown": "generator", "gaussian": "no model"}
    figure, axes = drawn(monkeypatch, tmp_path, samples, families, names={"flown": "ours"})
    assert [a.get_xscale() for a in axes] == ["symlog", "linear"]
    points = [sum(len(line.get_xdata()) for line in a.lines) for a in axes]
    lines = 2 * 2  # dotted, of two points
    assert points == [59 + 3 + lines, 60 + 3 + lines]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["ours", "gaussian", "originals"]


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="group 'a' of the figure has family None"):
        accuracy_against(tmp_path / "a.png", {"a": group(2, 0.5, 1, 1)}, {})
    with pytest.raises(UserError, match="needs a group"):
        accuracy_against(tmp_path / "a.png", {}, {})
