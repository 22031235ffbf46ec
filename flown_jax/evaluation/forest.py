"""Forest plots: differences to one row with their intervals, a line a method, a panel a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.evaluation.figures import new_figure, save_figure

_OURS, _OTHER, _CHOSEN = "#1a66b3", "#5f6870", "#b9bec3"
_SHARE = 0.75  # of the lines whose intervals lie within the axis at least
_LEAST = 2.0  # half the axis at least
_AIR = 1.15
_ROOM = 0.15  # of it on the other side of zero at least


@dataclass(frozen=True)
class Difference:
    """A line of a forest plot.

    Attributes:
      label: in front of it.
      value: the difference. within: half width of its interval within runs, None for none.
      seeds: half width over the seeds, None for none.
      kind: `ours`, `other`, or `chosen` for what takes the best by test labels.
    """

    label: str
    value: float
    within: float | None = None
    seeds: float | None = None
    kind: str = "other"


def forest(path: Path, panels: Mapping[str, Sequence[Difference]], x_label: str) -> None:
    """Differences around a line at zero as a PNG file; far out, an arrow with its value.

    Args:
      panels: title -> lines from top to bottom; the same label is the same line in all panels.
      x_label: what the differences are, with their unit.
    """
    labels = list(dict.fromkeys(each.label for lines in panels.values() for each in lines))
    size = (2.4 + 3.5 * len(panels), 1.3 + 0.26 * len(labels))
    figure, axes = new_figure(1, len(panels), size)
    limits = _limits([each for lines in panels.values() for each in lines])
    for i, (axis, (title, lines)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        axis.axvline(0, color="black", lw=0.9, zorder=0)
        for each in lines:
            _line(axis, each, labels.index(each.label), limits)
        axis.set_xlim(limits)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set_yticks(range(len(labels)), labels if i == 0 else [""] * len(labels), fontsize=9)
        axis.set_xlabel(x_label, fontsize=9)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(axis="y", length=0)
        for side in ("left", "right", "top"):
            axis.spines[side].set_visible(False)
    _legend(figure, [each for lines in panels.values() for each in lines])
    save_figure(figure, path)


def _limits(lines: Sequence[Difference]) -> tuple[float, float]:
    """Ends of the axis: most intervals are whole, however far the others lie."""
    halves = [max(each.within or 0.0, each.seeds or 0.0) for each in lines]
    ends = [abs(each.value) + half for each, half in zip(lines, halves, strict=True)]
    far = max(_LEAST, _AIR * float(np.quantile(ends, _SHARE, method="higher")))
    low = min(each.value - half for each, half in zip(lines, halves, strict=True))
    high = max(each.value + half for each, half in zip(lines, halves, strict=True))
    room = _ROOM * far  # on either side of zero
    return -min(far, max(room, -_AIR * low)), min(far, max(room, _AIR * high))


def _line(axis: Any, each: Difference, y: int, limits: tuple[float, float]) -> None:
    colour = {"ours": _OURS, "chosen": _CHOSEN}.get(each.kind, _OTHER)
    low, high = limits
    if not low <= each.value <= high:
        end, side = (low, 1) if each.value < low else (high, -1)
        step = side * (high - low)
        axis.plot(end + 0.02 * step, y, marker="<" if side > 0 else ">", color=colour, ms=6)
        place = {"ha": "left" if side > 0 else "right", "va": "center", "fontsize": 8}
        axis.text(end + 0.045 * step, y, f"{each.value:+.1f}", color=colour, **place)
        return
    for half, style in ((each.seeds, {"lw": 1.1}), (each.within, {"lw": 3.6, "alpha": 0.6})):
        if half is not None:
            ends = np.clip([each.value - half, each.value + half], low, high)
            axis.plot(ends, [y, y], color=colour, **style)
    face = "white" if each.kind == "chosen" else colour
    axis.plot(each.value, y, marker="o", ms=5.5, mfc=face, mec=colour, mew=1.2)


def _legend(figure: Any, lines: Sequence[Difference]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if any(each.within is not None for each in lines):
        handles.append(Line2D([], [], color=_OTHER, lw=3.6, alpha=0.6, label="95 %, within runs"))
    if any(each.seeds is not None for each in lines):
        handles.append(Line2D([], [], color=_OTHER, lw=1.1, label="95 %, over seeds"))
    if any(each.kind == "ours" for each in lines):
        handles.append(Line2D([], [], color=_OURS, marker="o", ls="", label="this library's model"))
    if any(each.kind == "chosen" for each in lines):
        words = "† takes the best by test labels"
        handles.append(Line2D([], [], color=_CHOSEN, mfc="white", marker="o", ls="", label=words))
    columns = max(1, int(figure.get_size_inches()[0] / 2.3))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8)
