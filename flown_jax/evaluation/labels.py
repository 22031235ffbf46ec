"""Labels of points in a figure, placed so that they do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_FONT = 9
_RADII = (7, 13, 20, 29, 40, 54, 70, 90)  # pixels from a point to its label
_ANGLES = np.deg2rad([0, 180, 90, 270, 30, 150, 210, 330, 60, 120, 240, 300])
_DOT = 6.0  # half a mark, pixels
_AIR = 2.0  # around a label, pixels
_LINE = 16  # radius from which a line leads to the label

Box = tuple[float, float, float, float]  # left, bottom, right, top


def place_labels(
    figure: Any,
    axis: Any,
    points: Sequence[tuple[float, float, str, str]],
    level: float | None = None,
) -> list[Any]:
    """Write a label near each point of a panel; the texts.

    Each goes to the place nearby that hides least of marks and labels so far, with a line to its
    point where it lies apart. The figure must have been drawn once, so that places are known.

    Args:
      points: (x, y, text, colour) in the data's units.
      level: height of a horizontal line that labels keep off, too.
    """
    renderer = figure.canvas.get_renderer()
    window = axis.get_window_extent(renderer)
    frame = (window.x0, window.y0, window.x1, window.y1)
    places = axis.transData.transform([(x, y) for x, y, *_ in points]).reshape(-1, 2)
    taken: list[Box] = [_around(px, py, _DOT, _DOT) for px, py in places]
    if level is not None:
        height = axis.transData.transform((points[0][0], level))[1]
        taken.append((window.x0, height - 2, window.x1, height + 2))
    texts = []
    # Points with many neighbours have the fewest places left: they choose first.
    order = np.argsort(-_crowd(places), kind="stable")
    for i in order:
        x, y, words, colour = points[i]
        text = axis.annotate(
            words, (x, y), (0, 0), textcoords="offset points", fontsize=_FONT, color=colour
        )
        text.set(ha="center", va="center")
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        half = (extent.width / 2 + _AIR, extent.height / 2 + _AIR)
        box, radius = _best(tuple(places[i]), half, frame, taken)
        taken.append(box)
        centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        text.set_position((centre - places[i]) * 72 / figure.dpi)
        if radius > _LINE:
            end = np.clip(places[i], box[:2], box[2:])
            line = axis.transData.inverted().transform([places[i], end])
            axis.plot(line[:, 0], line[:, 1], color=colour, lw=0.6, alpha=0.8, zorder=1)
        texts.append(text)
    return texts


def _best(
    place: tuple[float, ...], half: tuple[float, float], frame: Box, taken: Sequence[Box]
) -> tuple[Box, int]:
    """The box of a label and its distance: the nearest free place, or the least covered one."""
    found: list[tuple[float, Box, int]] = []
    for radius in _RADII:
        for rank, angle in enumerate(_ANGLES):
            cos, sin = np.cos(angle), np.sin(angle)
            x = place[0] + radius * cos + half[0] * np.clip(2 * cos, -1, 1)
            y = place[1] + radius * sin + half[1] * np.clip(2 * sin, -1, 1)
            box = _around(float(x), float(y), *half)
            hidden = sum(_overlap(box, other) for other in taken)
            outside = 4 * half[0] * half[1] - _overlap(box, frame)
            found.append((hidden + 5 * outside + 0.6 * radius + 0.2 * rank, box, radius))
    _, box, radius = min(found, key=lambda candidate: candidate[0])
    return box, radius


def _around(x: float, y: float, half_width: float, half_height: float) -> Box:
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _crowd(places: np.ndarray) -> np.ndarray:
    """How many other points are within 60 pixels of each."""
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return (gaps < 60).sum(1) - 1
