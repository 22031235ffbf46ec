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


def test_contact_sheet_shows_grey_and_colour_images_as_they_are(tmp_path):
    grey = np.zeros((2, 3, 8, 8), np.uint8)
    grey[0, 1], grey[1, 2] = 90, 180
    colour = np.zeros((2, 3, 8, 8, 3), np.uint8)
    colour[0, 1], colour[1, 2] = (200, 30, 60), (10, 120, 240)
    for name, images in {
        "grey": grey,
        "channel": grey[..., None],
        "same": np.repeat(grey[..., None], 3, axis=-1),
        "colour": colour,
        "sizes": [colour[0], np.repeat(np.repeat(colour[1], 3, axis=1), 3, axis=2)],
    }.items():
        figures.contact_sheet(tmp_path / f"{name}.png", images, ["one", "two"])
    sheet = {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in tmp_path.iterdir()}

    def where(name, *value):
        """Mean (row, column) of the pixels of a colour, as a share of the picture."""
        found = np.argwhere((np.abs(sheet[name].astype(int) - value) <= 2).all(-1))
        assert len(found) > 500
        return found.mean(0) / sheet[name].shape[:2]

    np.testing.assert_array_equal(sheet["grey"], sheet["channel"])
    # Matplotlib rounds through its table of greys.
    np.testing.assert_allclose(sheet["grey"].astype(int), sheet["same"], atol=2)
    for name in ("colour", "sizes"):
        first, second = where(name, 200, 30, 60), where(name, 10, 120, 240)
        np.testing.assert_allclose(first, where("grey", 90, 90, 90), atol=0.01)
        np.testing.assert_allclose(second, where("grey", 180, 180, 180), atol=0.01)
        assert (first < second).all()


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
