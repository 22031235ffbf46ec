"""The mapped axis that a batch lies on where several devices share it.

A layer that looks at its batch as a whole, such as BatchNorm, takes its means over this axis, too.
"""

from __future__ import annotations

import jax

AXIS = "devices"


def bound_axis() -> str | None:
    """`AXIS` inside of a function that is mapped over it, else None."""
    try:
        jax.lax.axis_index(AXIS)
    except NameError:
        return None
    return AXIS
