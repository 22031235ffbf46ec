"""Numbers that a user gives, refused in a sentence where they cannot mean anything."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError


def whole(value: Any, name: str, least: int = 1) -> int:
    """The whole number.

    Raises:
      UserError: it is none (True is none, either), or below `least`.
    """
    try:
        found = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if found < least:
        raise UserError(f"{name} must be at least {least}, got {found}.")
    return found


def number(value: Any, name: str, least: float = -np.inf, above: float = -np.inf) -> None:
    """Refuses what is no finite number or not large enough, or an array that holds such.

    Inside of a compiled function values are not known and pass.

    Raises:
      UserError: of these.
    """
    if isinstance(value, jax.core.Tracer):
        return
    try:
        found = np.asarray(value, np.float64)
        fine = bool(np.all(np.isfinite(found) & (found >= least) & (found > above)))
    except (TypeError, ValueError):
        fine = False
    if isinstance(value, bool | str) or not fine:
        bound = f" of at least {least:g}" if least > -np.inf else ""
        bound = f" above {above:g}" if above > -np.inf else bound
        raise UserError(f"{name} must be a finite number{bound}, got {value!r}.")


def floats(x: Any, name: str) -> None:
    """Refuses what is no batch of floating-point numbers, or an empty one, whose mean is NaN.

    Raises:
      UserError: of these.
    """
    if not jnp.ndim(x) or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"{name} must be floats (B, ...), B > 0, got {x.dtype} {jnp.shape(x)}.")
