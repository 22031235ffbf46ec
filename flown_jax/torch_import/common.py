"""Reading a PyTorch state dict entry by entry, with shapes checked and leftovers refused.

Layouts: conv2d (out, in, kh, kw) becomes (kh, kw, in, out); linear (out, in) becomes (in, out); a
1x1 convolution becomes a linear layer where the module has one; conv1d (out, in, k) becomes
(k, in, out); a transposed conv1d (in, out, k) becomes (k, in, out); norms rename weight to scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError


class StateReader:
    """A state dict that remembers which entries were taken.

    Args:
      state_dict: PyTorch names to arrays (anything that `numpy.asarray` takes).
      ignore: prefixes of entries that the network does not need, such as a loss's own.
    """

    def __init__(self, state_dict: Mapping[str, Any], ignore: Iterable[str] = ()):
        self._state = state_dict
        self._left = {k for k in state_dict if not k.startswith(tuple(ignore))}

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Entry `name` as a contiguous float32 array.

        Raises:
          UserError: the entry is missing or has another shape.
        """
        if name not in self._state:
            raise UserError(f"The state dict has no entry {name!r}, expected with shape {shape}.")
        value = np.asarray(self._state[name])
        if value.shape != tuple(shape):
            raise UserError(
                f"Entry {name!r} of the state dict has shape {value.shape}, not {tuple(shape)}."
            )
        self._left.discard(name)
        return np.ascontiguousarray(value, dtype=np.float32)

    def has(self, name: str) -> bool:
        """Whether the state dict has the entry."""
        return name in self._state

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> dict:
        """`Dense` parameters from `name`.weight (outputs, inputs) and `name`.bias."""
        weight = self.take(f"{name}.weight", (outputs, inputs))
        return self._with_bias({"kernel": weight.T}, name, outputs, bias)

    def conv2d(self, name: str, inputs: int, outputs: int, k: int = 3, bias: bool = True) -> dict:
        """`Conv` parameters from `name`.weight (outputs, inputs, k, k) and `name`.bias."""
        weight = self.take(f"{name}.weight", (outputs, inputs, k, k))
        return self._with_bias({"kernel": weight.transpose(2, 3, 1, 0)}, name, outputs, bias)

    def pointwise(self, name: str, inputs: int, outputs: int, dims: int) -> dict:
        """`Dense` parameters from a convolution of kernel size 1 over `dims` dimensions."""
        weight = self.take(f"{name}.weight", (outputs, inputs, *(1,) * dims))
        return self._with_bias({"kernel": weight.reshape(outputs, inputs).T}, name, outputs, True)

    def conv1d(self, name: str, inputs: int, outputs: int, k: int, bias: bool = True) -> dict:
        """Sequence convolution's parameters from `name`.weight (outputs, inputs, k)."""
        weight = self.take(f"{name}.weight", (outputs, inputs, k))
        return self._with_bias({"kernel": weight.transpose(2, 1, 0)}, name, outputs, bias)

    def conv_transpose1d(self, name: str, inputs: int, outputs: int, k: int) -> dict:
        """`ConvTranspose1d` parameters from `name`.weight (inputs, outputs, k)."""
        weight = self.take(f"{name}.weight", (inputs, outputs, k))
        return self._with_bias({"kernel": weight.transpose(2, 0, 1)}, name, outputs, True)

    def norm(self, name: str, channels: int) -> dict:
        """Scale and bias of a normalisation from `name`.weight and `name`.bias."""
        return {
            "scale": self.take(f"{name}.weight", (channels,)),
            "bias": self.take(f"{name}.bias", (channels,)),
        }

    def embedding(self, name: str, rows: int, width: int) -> dict:
        """`linen.Embed` parameters from `name`.weight (rows, width)."""
        return {"embedding": self.take(f"{name}.weight", (rows, width))}

    def finish(self) -> None:
        """Refuses entries that nobody took.

        Raises:
          UserError: some are left; the first ones are named.
        """
        if self._left:
            names = sorted(self._left)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise UserError(
                f"The state dict has entries unknown to this network: {', '.join(names[:5])}{more}."
            )

    def _with_bias(self, layer: dict, name: str, outputs: int, bias: bool) -> dict:
        # safetensors writes transposed views wrongly, so every array leaves here contiguous.
        layer = {key: np.ascontiguousarray(value) for key, value in layer.items()}
        if bias:
            layer["bias"] = self.take(f"{name}.bias", (outputs,))
        return layer


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The configuration's entry `name`.

    Raises:
      UserError: there is none.
    """
    if name not in config:
        raise UserError(f"The configuration of the network has no entry {name!r}.")
    return config[name]
