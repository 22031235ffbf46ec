"""Figures are written as pictures without a display, folders included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from PIL import Image

from flown_jax.evaluation import figures
from tests.evaluation.rows import SETS, rows
from tests.parity.fixtures import ROOT


def picture(path) -> np.ndarray:
    """The pixels of a PNG file that shows something."""
    pixels = np.asarray(Image.open(path).convert("L"))
    assert Image.open(path).format == "PNG" and pixels.std() > 1
    return pixels


def test_every_figure_becomes_a_picture(tmp_path):
    folder = tmp_path / "new" / "figures"
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    figures.contact_sheet(folder / "sheet.png", images, ["one", "two"], "all")
    figures.accuracy_bars(folder / "bars.png", rows(), SETS)
    figures.curves(
        folder / "curves.png",
        [1, 10, 100],
        {"accuracy": {"mean": [50, 60, 61], "averaged": [55, 62, 63]}, "nll": {"mean": [3, 2, 1]}},
        x_label="evaluations",
        y_labels={"accuracy": "%", "nll": "nats"},
        levels={"accuracy": {"probe": 52.0}},
    )
    confidence = np.linspace(0, 1, 500)
    figures.reliability(
        folder / "reliability.png",
        {title: {"method": (confidence, confidence > 0.4)} for title in SETS.values()},
    )
    assert {path.name for path in folder.iterdir()} == {
        "sheet.png",
        "bars.png",
        "curves.png",
        "reliability.png",
    }
    assert all(picture(path).size > 10_000 for path in folder.iterdir())


def test_another_figure_depends_on_its_numbers(tmp_path):
    for name, factor in (("a", 1.0), ("b", 0.5), ("c", 1.0)):
        scaled = [{**row, "value": row["value"] * factor} for row in rows()]
        figures.accuracy_bars(tmp_path / f"{name}.png", scaled, SETS)
    a, b, c = (picture(tmp_path / f"{name}.png") for name in "abc")
    np.testing.assert_array_equal(a, c)
    assert a.shape != b.shape or (a != b).any()


def test_a_bin_with_few_predictions_is_left_out(tmp_path):
    confidence = np.concatenate([np.full(500, 0.95), np.full(5, 0.15)])
    figures.reliability(tmp_path / "few.png", {"t": {"m": (confidence, confidence > 0.5)}})
    figures.reliability(tmp_path / "none.png", {"t": {"m": (confidence[:500], np.ones(500))}})
    np.testing.assert_array_equal(picture(tmp_path / "few.png"), picture(tmp_path / "none.png"))


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, flown_jax.evaluation.figures; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
