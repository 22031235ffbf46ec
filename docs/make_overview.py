"""Draws docs/overview.png: what flows where."""

from __future__ import annotations

import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BOXES = {
    "tasks": (0.10, 0.78, "many small tasks,\nzoos of data sets"),
    "heads": (0.36, 0.78, "trained weights w:\nheads, whole networks"),
    "codec": (0.62, 0.78, "target space w → x₁,\nautoencoder x₁ → z"),
    "flow": (0.62, 0.40, "flow in latent space\ndx/dt = v(x, t, y)"),
    "source": (0.88, 0.40, "source x₀\nGaussian, Kaiming"),
    "support": (0.10, 0.40, "support images of\na task or a data set"),
    "condition": (0.36, 0.40, "frozen features, CAML\n→ condition y"),
    "decode": (0.62, 0.08, "decoder z → x₁,\ntarget space x₁ → w"),
    "new": (0.36, 0.08, "new heads or networks,\nrun on new images"),
    "table": (0.10, 0.08, "accuracy, calibration,\ncopies, baselines"),
}
ARROWS = (
    ("tasks", "heads"),
    ("heads", "codec"),
    ("codec", "flow"),
    ("source", "flow"),
    ("support", "condition"),
    ("condition", "flow"),
    ("flow", "decode"),
    ("decode", "new"),
    ("new", "table"),
)
_HALF = (0.105, 0.085)


def main() -> None:
    """Write the picture beside this file."""
    figure = Figure(figsize=(9.5, 4.2))
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.04, 0.90)
    for name, (x, y, text) in BOXES.items():
        ours = name in ("codec", "flow", "decode")
        axis.add_patch(
            FancyBboxPatch(
                (x - _HALF[0], y - _HALF[1]),
                2 * _HALF[0],
                2 * _HALF[1],
                boxstyle="round,pad=0.0,rounding_size=0.02",
                facecolor="#d9e8f7" if ours else "#f3f3f3",
                edgecolor="#1a66b3" if ours else "#888888",
            )
        )
        axis.text(x, y, text, ha="center", va="center", fontsize=10)
    for start, end in ARROWS:
        (x0, y0, _), (x1, y1, _) = BOXES[start], BOXES[end]
        if abs(y0 - y1) < 0.01:
            side = 1 if x1 > x0 else -1
            tail, head = (x0 + side * _HALF[0], y0), (x1 - side * _HALF[0], y1)
        else:
            tail, head = (x0, y0 - _HALF[1]), (x1, y1 + _HALF[1])
        axis.add_patch(FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=14, lw=1.2))
    figure.savefig(pathlib.Path(__file__).with_name("overview.png"), dpi=110)


if __name__ == "__main__":
    main()
