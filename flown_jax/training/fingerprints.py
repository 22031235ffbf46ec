"""What a stage's inputs are as JSON values: the same text for the same content, and only for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flown_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Deferred:
    """A value whose fingerprint is known before it is made, and checked when it is.

    A stage that is finished never makes it.

    Attributes:
      fingerprint: of the value.
      make: the value; it has a `fingerprint`, an attribute or a method.
      what: the value in words, for the sentence.
    """

    fingerprint: str
    make: Callable[[], Any]
    what: str

    def __call__(self) -> Any:
        """The value.

        Raises:
          UserError: what is made is not what the fingerprint was taken of.
        """
        value = self.make()
        if own_fingerprint(value) != self.fingerprint:
            raise UserError(
                f"{self.what} are no longer those that the run was begun with: choose a new "
                "--workdir."
            )
        return value


def plain_values(value: Any, where: str = "inputs") -> Any:
    """The value as JSON holds it.

    Tuples become lists, configs dicts, dataclasses dicts with the name of their class, arrays and
    random keys the hash of their content, and what has a fingerprint (results of stages, image
    encoders, specs, image sets) stands by it.

    Raises:
      UserError: a part of it is none of these; `where` names it.
    """
    if hasattr(type(value), "to_dict") and _is_mapping(value):  # an ml_collections config
        value = value.to_dict()
    if _is_mapping(value):
        found = {str(key): plain_values(part, f"{where}.{key}") for key, part in value.items()}
        if len(found) < len(value):
            raise UserError(f"{where} has two keys that are the same as texts, such as 1 and '1'")
        return found
    if (mark := own_fingerprint(value)) is not None:
        name = getattr(value, "name", None)
        return {"name": name, "fingerprint": mark} if _named(name) else {"fingerprint": mark}
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(value))
        return {"random_key": str(jax.random.key_impl(value)), **_array(data)}
    if isinstance(value, np.ndarray | jax.Array) and np.ndim(value):
        array = np.asarray(value)
        if not array.dtype.hasobject:  # of objects, the bytes are addresses
            return _array(array)
    elif isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, **plain_values(parts, where)}
    if isinstance(value, list | tuple):
        return [plain_values(part, f"{where}.{i}") for i, part in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise UserError(f"{where} must be JSON values or stage results, not {value!r:.80}")


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of the value as JSON holds it, whatever the version of the library."""
    text = json.dumps(plain_values(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def own_fingerprint(value: Any) -> str | None:
    """The fingerprint that a value has of its own, or None; a field of a mapping is not one."""
    if isinstance(value, type) or _is_mapping(value):
        return None
    mark = getattr(value, "fingerprint", None)
    mark = mark() if callable(mark) else mark
    return mark if isinstance(mark, str) else None


def difference(there: Any, here: Any, where: str = "") -> str | None:
    """The first field in which two JSON values differ, with both values; None if in none."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            path = f"{where}.{key}" if where else key
            if key not in there:
                return f"no {path}, and now has {path} = {_short(here[key])}"
            if key not in here:
                return f"{path} = {_short(there[key])}, which is now absent"
            if (found := difference(there[key], here[key], path)) is not None:
                return found
        return None
    # 1, 1.0 and True are equal in Python and differ in a fingerprint.
    if json.dumps(there, sort_keys=True) == json.dumps(here, sort_keys=True):
        return None
    return f"{where} = {_short(there)}, and now has {where} = {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_mapping(value: Any) -> bool:
    """Mappings and configs, which are none to Python; their fields may have any name."""
    return isinstance(value, Mapping) or callable(getattr(type(value), "items", None))


def _named(name: Any) -> bool:
    return isinstance(name, str) and name != ""


def _array(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(f"{array.dtype} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return {"shape": list(array.shape), "sha256": digest.hexdigest()}
