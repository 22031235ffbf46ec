"""The pickle inside a PyTorch checkpoint, read and written without PyTorch and without its powers.

A pickle names functions that its reader calls, and sets state on what they give. This reader is a
stack machine of its own that calls nothing and sets nothing: it knows the few names that tensors
need, and whatever else the file names becomes a `Foreign`, which is a name and no more.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flown_jax.errors import UserError
from flown_jax.torch_import.state_tensors import Storage, Tensor


@dataclass(frozen=True, eq=False)
class Foreign:
    """An object that only code could make, by the name of its class or function."""

    name: str


def loads(data: bytes | BinaryIO, path: Path, storages: dict[str, Storage] | None = None) -> Any:
    """What a checkpoint's pickle holds: plain values, lists and dicts, with `Tensor` for tensors.

    Time and memory grow with the pickle's length alone: what it names twice is not copied, and
    entries of a dict whose key is no text, number, bytes or None are left out.

    Args:
      data: the pickle, or a stream that is read to the pickle's end.
      path: the file it comes from, for sentences.
      storages: is given every storage that the pickle names, by its key.
    Raises:
      UserError: the pickle is damaged.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Machine({} if storages is None else storages).run(stream)
    except Exception as error:  # whatever a damaged pickle makes a reader raise
        raise UserError(f"{path} is damaged: its pickle cannot be read") from error


def dumps(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """A data.pkl of an OrderedDict of contiguous tensors; the k-th one has the storage "k".

    Args:
      tensors: name, kind of storage (a key of `STORAGES`) and shape of each.
    """
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for k, (name, kind, shape) in enumerate(tensors):
        count = math.prod(shape)
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n("]
        parts += [b"(", _text("storage"), f"ctorch\n{kind}\n".encode(), _text(str(k))]
        parts += [_text("cpu"), _number(count), b"tQ"]  # t: tuple, Q: fetch by this identity
        parts += [_number(0), _numbers(shape), _numbers(strides), b"\x89", _ORDERED_DICT]
        parts += [b"tR"]  # call with this tuple; \x89 above is requires_grad=False
    return b"".join([*parts, b"u."])


_KEYS = (str, int, float, bool, bytes, type(None))
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
)
# Sets are lists here: their members may be anything, and nobody asks for them.
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}


class _Machine:
    """The pickle's stack, the places of its marks, and its memory."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps = self._copied = 0

    def run(self, stream: BinaryIO) -> Any:
        """The value of the next pickle of a stream."""
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            self._steps += 1
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif name == "STOP":
                break
            elif name not in ("PROTO", "FRAME"):
                self._step(name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack, pop = self._stack, self._stack.pop
        match name:
            case "MARK":
                self._marks.append(len(stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "POP":
                pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "TUPLE" | "FROZENSET":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "LIST":
                stack.append(self._marked())
            case "DICT":
                pairs = self._marked()
                stack.append({})
                self._set(pairs)
            case "APPEND":
                self._extend([pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._marked())
            case "SETITEM":
                value, key = pop(), pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._marked())
            case "GLOBAL":
                stack.append(Foreign(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                attribute, module = pop(), pop()
                stack.append(Foreign(f"{module:s}.{attribute:s}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = pop(), pop()
                self._make(function, arguments)
            case "NEWOBJ_EX":
                _, arguments, function = pop(), pop(), pop()
                self._make(function, arguments)
            case "INST":
                self._make(Foreign(argument.replace(" ", ".")), self._marked())
            case "OBJ":
                function, *arguments = self._marked()
                self._make(function, arguments)
            case "BUILD":
                pop()  # the state of an object: of a dict's attributes no one asks
            case "BINPERSID":
                stack.append(found := _persistent(pop()))
                if isinstance(found, Storage):
                    self._storages[found.key] = found
            case _:
                raise ValueError(f"the opcode {name}")

    def _make(self, function: Any, arguments: Any) -> None:
        self._stack.append(made := _made(function, arguments))
        if isinstance(made, dict):  # of a list, which took more steps than it has entries
            self._copied += len(made)
            if self._copied > self._steps:
                raise ValueError("one list for many dicts")

    def _marked(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += values
        elif not isinstance(target, Foreign):
            raise ValueError("values for what is no list")

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            # A nested tuple would take time without end to be hashed.
            items = zip(pairs[::2], pairs[1::2], strict=True)
            target.update((key, value) for key, value in items if type(key) in _KEYS)
        elif not isinstance(target, Foreign):
            raise ValueError("entries for what is no dict")


def _made(function: Any, arguments: Any) -> Any:
    """What a call stands for: a dict, a tensor, or an object that is only named."""
    if not isinstance(function, Foreign):
        raise ValueError("a call of what is no function")
    module, _, name = function.name.rpartition(".")
    if function.name in _DICTS:
        # Python 2 hands a list of pairs over; a defaultdict is given its factory.
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return {key: value for key, value in pairs if type(key) in _KEYS}
    if function.name == "torch.Size":
        return arguments[0]
    if module == "torch._utils" and name in _TENSORS:
        storage, offset, size, stride, *rest = arguments
        rest = [*rest[2:], None, None]  # without requires_grad and hooks
        dtype = rest.pop(0).name if name.endswith("v3") else None
        return Tensor(storage, offset, size, stride, rest[0], dtype)
    if module == "torch._utils" and name in _PARAMETERS:
        return arguments[0]
    if function.name == "torch._tensor._rebuild_from_type_v2":
        inner, kind, inner_arguments, _ = arguments
        if kind.name in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            return _made(inner, inner_arguments)
    return Foreign(function.name)


def _persistent(identity: Any) -> Any:
    """The storage that a persistent identity names; of a module the name of its class."""
    word, kind, *rest = identity
    if word == "module":
        return Foreign(kind.name)
    key, _, count, *view = rest
    if word != "storage" or not isinstance(key, str) or any(part is not None for part in view):
        raise ValueError("unknown persistent identity")
    return Storage(kind.name.rpartition(".")[2], key, count)


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(n: int) -> bytes:
    if n < 1 << 8:
        return b"K" + n.to_bytes(1, "little")
    if n < 1 << 16:
        return b"M" + n.to_bytes(2, "little")
    if n < 1 << 31:
        return b"J" + n.to_bytes(4, "little")
    return b"\x8a\x08" + n.to_bytes(8, "little")


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_number(n) for n in values) + b"t"
