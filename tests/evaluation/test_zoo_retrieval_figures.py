"""Figures of generated networks: drawn in every case, and showing the numbers they are given."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flown_jax.evaluation import labels, tables
from flown_jax.evaluation import zoo_retrieval_figures as figures
from flown_jax.evaluation.figures import new_figure
from tests.evaluation.test_figures import picture
from tests.parity.fixtures import ROOT

SETS = {"near": "Near", "far": "Far"}
SHARES = {"near": {"near": 0.97, "far": 0.03}, "far": {"near": 0.0, "far": 1.0}}
CURVE = {"epochs": [0, 1, 25], "mean": [0.1, 0.7, 0.9], "std": [0.0, 0.02, 0.01]}
CURVES = {"near": {"flown": CURVE, "kaiming_normal": CURVE}, "new": {"flown": CURVE}}


def rows(copies: int = 0) -> list[dict]:
    methods = {"originals": (0.9, 1.0), "aligned_mean": (0.4, None), "flown": (0.91, 0.3)}
    found = []
    for name in SETS:
        for method, (accuracy, diversity) in methods.items():
            values = {"accuracy": accuracy, "copies": copies, "diversity": diversity}
            found += [
                {"table": "retrieval", "method": method, "set": name, "metric": metric}
                | {"value": value, "ci95": None, "n": 48}
                for metric, value in values.items()
                if value is not None
            ]
    return found


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    found = []

    def keep(figure, path):
        found.append(figure)

    monkeypatch.setattr(figures, "save_figure", keep)
    return found


def test_every_figure_becomes_a_picture(tmp_path):
    folder = tmp_path / "new"
    figures.accuracy_against_diversity(folder / "scatter.png", rows(), SETS)
    figures.confusion(folder / "confusion.png", SHARES, SETS)
    figures.fine_tuning(folder / "tuning.png", CURVES, SETS, {"near": 0.9})
    figures.losses(folder / "losses.png", {"steps": [0, 10], "gaussian": [2.0, 1.0]})
    figures.accuracy_strips(folder / "strips.png", {"near": {"flown": [0.5, 0.9]}}, SETS)
    assert len(list(folder.iterdir())) == 5
    assert all(picture(path).size > 10_000 for path in folder.iterdir())


def test_methods_stand_at_their_figures_and_copies_are_crosses(drawn, tmp_path):
    for copies in (2, 3):  # of 48: one in 24 is allowed
        figures.accuracy_against_diversity(tmp_path / "a.png", rows(copies), SETS)
    marks = []
    for figure in drawn:
        axis = figure.axes[0]
        points = [line for line in axis.lines if line.get_marker() in ("o", "X")]
        assert [tuple(line.get_xydata()[0].round(6)) for line in points] == [
            (1.0, 0.0),
            (0.0, -50.0),
            (0.3, 1.0),
        ]
        marks.append([line.get_marker() for line in points])
        assert {text.get_text() for text in axis.texts} == {"originals", "aligned mean", "flown"}
        # Heights are differences; their names are accuracies.
        for tick, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True):
            assert tick + 90 == pytest.approx(float(label.get_text()))
    assert marks == [["o", "o", "o"], ["o", "X", "X"]]


def test_a_confusion_has_its_shares_in_percent(drawn, tmp_path):
    figures.confusion(tmp_path / "a.png", SHARES, SETS)
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.texts] == ["97", "3", "0", "100"]
    np.testing.assert_allclose(axis.images[0].get_array(), [[97, 3], [0, 100]])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Near", "Far"]


@pytest.mark.parametrize("epochs", [[0], [0, 1, 5, 25, 50]])
def test_epochs_have_finite_places(drawn, tmp_path, epochs):
    curve = {"epochs": epochs, "mean": [0.5] * len(epochs), "std": [0.0] * len(epochs)}
    figures.fine_tuning(tmp_path / "a.png", {"near": {"flown": curve}}, SETS)
    axis = drawn[0].axes[0]
    limits = axis.transData.transform([(x, 50.0) for x in (*axis.get_xlim(), *epochs)])[:, 0]
    assert np.isfinite(limits).all()
    assert limits[0] < limits[2:].min() and limits[2:].max() < limits[1]
    assert [text.get_text() for text in axis.get_xticklabels()] == [str(e) for e in epochs]


def test_a_start_has_one_colour_in_all_panels(drawn, tmp_path):
    figures.fine_tuning(
        tmp_path / "a.png", {"near": CURVES["near"], "new": {"kaiming_normal": CURVE}}, SETS
    )
    first, second = drawn[0].axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    np.testing.assert_allclose(first.lines[0].get_ydata(), [10, 70, 90])


def test_labels_of_neighbours_do_not_lie_on_each_other():
    figure, axes = new_figure(1, 1, (6, 5))
    axis = axes[0, 0]
    axis.set(xlim=(0, 1), ylim=(0, 1))
    places = np.random.default_rng(0).uniform(0.4, 0.6, (9, 2))
    figure.canvas.draw()
    points = [(x, y, f"method {i}", "black") for i, (x, y) in enumerate(places)]
    texts = labels.place_labels(figure, axis, points, level=0.5)
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 9
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = axis.transData.transform(places)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    height = axis.transData.transform((0, 0.5))[1]
    assert not any(box.y0 < height < box.y1 for box in boxes)


def test_a_panel_without_originals_is_drawn(drawn, tmp_path):
    alone = [row for row in rows() if row["method"] == "flown"]
    figures.accuracy_against_diversity(tmp_path / "a.png", alone, SETS)
    assert tables.pivot(alone, "near", "retrieval")["flown"]["accuracy"] == (0.91, None)
    assert drawn[0].axes[0].lines[0].get_ydata()[0] == pytest.approx(91)


def test_importing_the_module_does_not_import_matplotlib():
    code = (
        "import sys, flown_jax.evaluation.zoo_retrieval_figures; sys.exit('matplotlib' in "
        "sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
