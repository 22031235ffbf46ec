"""What scripts put before the names of a network's tensors, taken off.

`DataParallel` and averaged models put `module.` before all names, `torch.compile` and sharding a
part of their own before those of what they wrap, and a network that is an attribute of another
module (Lightning's, say) the name of this attribute, such as `model.` or `backbone.`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from flown_jax.errors import UserError

_Value = TypeVar("_Value")

# Parts that wrappers put anywhere; no module of a network has such a name.
_PARTS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# So many parts are taken off at most.
_DEPTH = 8
# The count of averaged networks, beside them.
_COUNT = "n_averaged"


def without_wrappers(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """The state dict with the names that it has without wrappers.

    Raises:
      UserError: two names become one.
    """
    found: dict[str, _Value] = {}
    averaged = any(name.startswith("module.") for name in state)
    for name, value in state.items():
        plain = ".".join(part for part in name.split(".") if part not in _PARTS)
        if plain in found:
            raise UserError(
                f"the state dict has {plain!r} twice, with and without a wrapper's part"
            )
        if not (averaged and plain == _COUNT):
            found[plain] = value
    for _ in range(_DEPTH):
        if first_part(found) == "module.":
            found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def fitting(
    state: Mapping[str, _Value], fits: Callable[[Iterable[str]], bool]
) -> dict[str, _Value]:
    """The state dict with names that fit, after parts that all begin with were taken off.

    Args:
      state: names to anything.
      fits: whether names are those of the network.
    Returns:
      The state dict without wrappers alone, where no names fit.
    """
    plain = found = without_wrappers(state)
    for _ in range(_DEPTH):
        part = first_part(found)
        if fits(found) or not part:
            break
        found = {name.removeprefix(part): value for name, value in found.items()}
    return found if fits(found) else plain


def first_part(names: Iterable[str]) -> str:
    """The part, with its point, that all names begin with; "" if there is none."""
    parts = {name.partition(".")[0] if "." in name else "" for name in names}
    return f"{parts.pop()}." if len(parts) == 1 and "" not in parts else ""
