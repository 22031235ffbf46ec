"""What a user gives to a meta-model: labels, images, numbers; taken rightly or refused."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.flow.solvers import SOLVERS

_SEEDS = 2**32  # more are the same seeds again


def classes_of(
    labels: Iterable[Hashable], class_names: Iterable[Hashable] | None, count: int
) -> tuple[list[Hashable], list[int]]:
    """The classes in the order of the user, or of their appearance, and each label's place.

    Args:
      labels: of `count` images; lists, or arrays of any library, also as a column.
    Raises:
      UserError: another number of labels, rows of numbers such as one-hot labels, a label that is
        missing, not hashable or no class, classes that are named twice or have no image.
    """
    found = _names(labels, "labels")
    if len(found) != count:
        raise UserError(f"{count} images came with {len(found)} labels; each needs one.")
    classes = list(dict.fromkeys(found))
    if class_names is not None:
        classes = _names(class_names, "class_names")
        if twice := [name for i, name in enumerate(classes) if name in classes[:i]]:
            raise UserError(f"class_names has {twice[0]!r} twice.")
    place = {name: i for i, name in enumerate(classes)}
    if unknown := [label for label in found if label not in place]:
        raise UserError(f"label {unknown[0]!r} is not among the class names {classes!r:.200}.")
    present = set(found)
    if empty := [name for name in classes if name not in present]:
        raise UserError(f"class {empty[0]!r} has no image in the support set.")
    return classes, [place[label] for label in found]


def _names(values: Any, what: str) -> list[Hashable]:
    """Labels as Python's values, which are equal where the labels are."""
    if hasattr(values, "__array__"):
        try:
            values = np.asarray(values)
        except Exception as error:  # whatever the array's library says, of a device for example
            raise UserError(f"{what} cannot be read as an array: {error}") from error
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise UserError(
                f"{what} have the shape {values.shape}, and must be one an image; of one-hot rows "
                "or scores give the class numbers, `.argmax(1)`."
            )
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise UserError(f"{what} must be a list or an array, not {values!r:.60}.")
    names = [_name(value, what) for value in values]
    if len({(type(name), name) for name in names}) > len(set(names)):
        raise UserError(f"{what} have equal values of several types, such as 1 and True.")
    return names


def _name(value: Any, what: str) -> Hashable:
    if hasattr(value, "__array__") and getattr(value, "ndim", None) == 0:
        array = np.asarray(value)
        value = array.item() if array.dtype.kind in "biufUS" else value
    try:
        hash(value)
    except TypeError as error:
        raise UserError(
            f"{what} must be one name or number an image, and one is {value!r:.60}."
        ) from error
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{what} must be names or finite numbers, and one is {value}.")
    return value


def checked_images(images: Any, *, sides: Sequence[int] | None, channels: Sequence[int]) -> Any:
    """Images (m, H, W, C) as they came: uint8, or float32 in [0, 1].

    Args:
      images: (m, H, W, C), or (m, H, W) where grey ones are taken; arrays of any library.
      sides: the only (H, W) that is taken; None takes any. channels: the numbers that are taken.
    Raises:
      UserError: images of another shape or type, not finite or outside of [0, 1].
    """
    try:
        images = np.asarray(images)
    except Exception as error:  # ragged lists, and whatever an array's library says
        raise UserError(f"images are no array of numbers of one shape: {error}") from error
    wanted = ", ".join(["H, W"] if sides is None else map(str, sides))
    forms = [f"(m, {wanted})"] if 1 in channels else []
    forms += [f"(m, {wanted}, {count})" for count in channels]
    takes = f"the meta-model takes {' or '.join(forms)}"
    if images.ndim == 3 and 1 in channels:
        if sides is None and images.shape[2] in (1, 3, 4):
            raise UserError(
                f"images have shape {images.shape}, which may be one image with channels or grey "
                f"ones {images.shape[2]} pixels wide; {takes}."
            )
        images = images[..., None]
    fits = images.ndim == 4 and 0 not in images.shape and images.shape[3] in channels
    if not fits or (sides is not None and list(images.shape[1:3]) != list(sides)):
        raise UserError(f"images have shape {images.shape}; {takes}.")
    if images.dtype == np.uint8:
        return images
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}; give uint8, or floating point in [0, 1].")
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise UserError("images hold NaN or infinite values.")
    if images.min() < 0 or images.max() > 1:
        raise UserError(
            f"floating-point images must lie in [0, 1], and these reach from {images.min():g} "
            f"to {images.max():g}."
        )
    return images


def checked_sampling(
    *, samples: Any, solver: Any, steps: Any, temperature: Any, seed: Any = 0
) -> dict[str, Any]:
    """Options of sampling as Python's numbers.

    Raises:
      UserError: one of another kind or outside of its range.
    """
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise UserError(f"solver is {solver!r}; it is one of {', '.join(SOLVERS)}.")
    count = _whole(samples, "samples", 1, "at least 1 network must be drawn")
    number = None
    if not isinstance(temperature, bool | str) and np.ndim(temperature) == 0:
        with contextlib.suppress(TypeError, ValueError):
            number = float(temperature)
    if number is None or not 0 <= number < math.inf:
        raise UserError(f"temperature is {temperature!r:.60}; it is a finite number from 0 up.")
    return {
        "samples": count,
        "solver": solver,
        "steps": _whole(steps, "steps", 1, "at least 1 step must be taken"),
        "temperature": number,
        "seed": _whole(seed, "seed", 0, f"it is a whole number from 0 below {_SEEDS}", _SEEDS),
    }


def _whole(value: Any, name: str, least: int, told: str, below: int | None = None) -> int:
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (below is not None and number >= below):
        kind = "" if number is not None else ", and must be a whole number"
        raise UserError(f"{name} is {value!r:.60}{kind}; {told}.")
    return number
