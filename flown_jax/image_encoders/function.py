"""A Python function as an image encoder: named by a text, imported, its output checked."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError

# Of pictures for a function that takes images as they come: two that it takes are enough.
_SIDES = (16, 28, 32, 64, 84, 105, 224)
_ENOUGH = 2


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

    def given(self, side: int, channels: Sequence[int]) -> bytes:
        """A hash of what the function gives on a few fixed pictures.

        It changes with whatever the features depend on: other modules, files of weights, versions
        of libraries.

        Args:
          side: of the pictures; 0 tries several. channels: those that are tried.
        Raises:
          UserError: the function takes none of the pictures, or gives a picture other features the
            second time or beside other pictures.
        """
        digest = hashlib.sha256()
        told: list[Exception] = []
        for count in channels:
            taken = 0
            for size in [side] if side else _SIDES:
                if taken == _ENOUGH:
                    break
                pictures = _pictures(size, count)
                try:
                    features = self(pictures)
                except Exception as error:  # whatever the function says to channels and sides
                    told.append(error)
                    continue
                taken += 1
                digest.update(f"{pictures.shape}{features.shape}".encode() + features.tobytes())
                if not np.array_equal(self(pictures), features):
                    raise UserError(
                        f"the image encoder {self._name} gave the same images other features the "
                        "second time; features must not depend on chance or on earlier calls."
                    )
                far = np.abs(self(pictures[:1]) - features[:1]).max()
                if not far <= 0.01 * np.abs(features).max():
                    raise UserError(
                        f"the image encoder {self._name} gave an image other features beside other "
                        "images than alone; features must not depend on the batch."
                    )
            if not taken:
                digest.update(b"none")
        if len(told) == len(channels) * (1 if side else len(_SIDES)):
            ours = [error for error in told if isinstance(error, UserError)]
            if ours:
                raise ours[0]
            raise UserError(
                f"the image encoder {self._name} takes none of the pictures that its fingerprint "
                f"is made on ({' or '.join(map(str, channels))} channels, side "
                f"{side or ', '.join(map(str, _SIDES))}): {type(told[-1]).__name__}: {told[-1]}"
                f"{'' if side else '; set its side to that of its images'}."
            ) from told[-1]
        return digest.digest()

    def source(self) -> bytes:
        """Bytes of the file that the function's module stands in; none of a built-in one."""
        try:
            return Path(inspect.getfile(self._module)).read_bytes()
        except (TypeError, OSError):
            return b""


def _pictures(side: int, channels: int) -> np.ndarray:
    """Three pictures (3, side, side, channels) in [0, 1]: noise, dark noise, a ramp."""
    noise = np.random.default_rng(0).random((side, side, channels), np.float32)
    ramp = np.linspace(0, 1, noise.size, dtype=np.float32).reshape(noise.shape)
    pictures = np.stack([noise, 0.2 * noise**2, ramp]).astype(np.float32)
    pictures.setflags(write=False)
    return pictures
