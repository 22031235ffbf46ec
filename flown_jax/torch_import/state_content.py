"""The state dict in what a checkpoint holds: beside it, or around it, scripts save other things."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flown_jax.errors import UserError
from flown_jax.torch_import.state_pickle import Foreign
from flown_jax.torch_import.state_tensors import Storage, Tensor

# The keys under which training scripts keep the state dict of the network that they train.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "net_state_dict", "model_state", "model", "net"),
    *("network", "module", "weights", "params"),
)
# So many keys are named in a sentence.
_NAMED = 5
_NAMES = {Tensor: "tensor", Storage: "storage"}


def state_in(content: Any, path: Path, key: str | None = None) -> Mapping[str, Tensor]:
    """The one dict of tensors in what a checkpoint holds.

    That is the whole content, or the one dict of tensors among its entries (of a list or tuple, by
    number), or among the entries of these. Of several, the one under a key that training scripts
    use for the network itself is meant: the running average beside it, as `state_dict_ema`, has to
    be asked for.

    Args:
      content: as `state_pickle.loads` gives it.
      path: for sentences.
      key: of the entry that is meant, where there are several.
    Raises:
      UserError: there is none, or several and no key says which.
    """
    if isinstance(content, Foreign):
        raise UserError(_runs_code(path, content))
    if isinstance(content, tuple | list):
        content = _states({str(i): value for i, value in enumerate(content)}) or content
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no state dict but one {_kind(content)}")
    if _is_state(content) and key is None:
        return content
    found = _states(content)
    if not found:
        inner = {id(v): (k, v) for k, v in content.items() if isinstance(v, dict)}
        for name, value in inner.values():
            if "param_groups" not in value:  # that is an optimiser
                found |= {f"{name}.{part}": state for part, state in _states(value).items()}
    if key is not None:
        if key not in found:
            raise UserError(
                f"{path} has no state dict under the key {key!r}, but under "
                f"{', '.join(list(found)[:_NAMED]) or 'none'}"
            )
        return found[key]
    usual = [name for word in _WRAPPERS for name in found if name.rpartition(".")[2] == word]
    usual = usual or list(found)
    if len(usual) > 1:
        count = "two" if len(usual) == 2 else len(usual)
        raise UserError(
            f"{path} holds {count} state dicts, under the keys {' and '.join(usual[:_NAMED])}; "
            "save one of them alone, or choose one with key (--key of import_zoo)"
        )
    if usual:
        return found[usual[0]]
    raise UserError(_why_none(content, path))


def _states(content: Mapping[Any, Any]) -> dict[str, Mapping[str, Tensor]]:
    """The entries that are state dicts; one that has several keys is looked at once."""
    known: dict[int, bool] = {}
    for value in content.values():
        if id(value) not in known:
            known[id(value)] = _is_state(value)
    return {k: v for k, v in content.items() if isinstance(k, str) and known[id(v)]}


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _why_none(content: Mapping[Any, Any], path: Path) -> str:
    """What keeps a dict from being a state dict, in one sentence."""
    if not content:
        return f"{path} holds an empty dict, not a state dict"
    usual = [content[name] for name in _WRAPPERS if isinstance(content.get(name), dict | Foreign)]
    near = usual[0] if usual and usual[0] != {} else content
    entries = near if isinstance(near, dict) else {"": near}
    foreign = [value for value in entries.values() if isinstance(value, Foreign)]
    if foreign:
        return _runs_code(path, foreign[0])
    key, value = next(
        (k, v) for k, v in entries.items() if not (isinstance(k, str) and isinstance(v, Tensor))
    )
    return f"{path} holds no state dict: its entry {key!r} is no tensor but of type {_kind(value)}"


def _runs_code(path: Path, value: Foreign) -> str:
    return (
        f"{path} is no plain state dict: it names {value.name}, and loading it would run code "
        "that the file chooses; save model.state_dict() with torch.save instead"
    )


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
