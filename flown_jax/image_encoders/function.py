"""A Python function as an image encoder: named by a text, imported, its output checked."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError


class Function:
    """The function of a name.

    Args:
      name: "package.module:function".
    Raises:
      UserError: a name of another form, a module that cannot be imported, or one without a
        function of this name.
    """

    def __init__(self, name: Any) -> None:
        module, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
        if not module or not attribute or module.startswith("."):
            raise UserError(
                f"an image encoder's function is named 'package.module:function', not {name!r}."
            )
        try:
            found = importlib.import_module(module)
        except Exception as error:  # whatever the module does when it is imported
            raise UserError(
                f"the image encoder {name} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not hasattr(found, attribute):
            raise UserError(f"the module {module} of the image encoder has no {attribute!r}.")
        self._name, self._module = name, found
        self._function = getattr(found, attribute)
        if not callable(self._function):
            raise UserError(f"the image encoder {name} is no function but {self._function!r:.60}.")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (B, F), float32, of images (B, H, W, C), float32 in [0, 1].

        Raises:
          UserError: the function gives anything but B rows of finite numbers.
        """
        out = self._function(images)
        try:
            features = np.asarray(out, np.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the image encoder {self._name} gave {type(out).__name__}, which is no array of "
                "numbers."
            ) from error
        if features.ndim != 2 or len(features) != len(images) or not features.shape[1]:
            raise UserError(
                f"the image encoder {self._name} gave an array of shape {features.shape}; for "
                f"{len(images)} images it must be ({len(images)}, F)."
            )
        if not np.isfinite(features).all():
            raise UserError(f"the image encoder {self._name} gave numbers that are not finite.")
        return features

    def source(self) -> bytes:
        """Bytes of the file that the function's module stands in; none of a built-in one."""
        try:
            return Path(inspect.getfile(self._module)).read_bytes()
        except (TypeError, OSError):
            return b""
