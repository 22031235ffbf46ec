"""Walks a config field by field: which stage's fingerprint does a field change?

A command runs with its stages replaced: nothing is computed, a stage's inputs are fingerprinted as
they always are, and its values are those that the test gives. What a changed field reaches is told
by the first stage whose fingerprint is another one.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments import stages
from flown_jax.encoders.codecs import GRAPH_NAMES as NAMES
from flown_jax.errors import UserError
from flown_jax.training.stages import StageResult, fingerprint

Values = Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]


# Another name of each field of an encoder of graphs.
GRAPH_NAMES = {
    f"codec.graph.{name}": {f"codec.graph.{name}": names[1]} for name, names in NAMES.items()
}


class Changed(Exception):
    """A stage has another fingerprint."""


class Walk:
    """The stages of a command, not computed.

    Args:
      values: stage -> function from its inputs to its values; a name that ends in "*" stands for
        all that begin so.
    """

    def __init__(self, values: Values) -> None:
        self.values, self.marks, self.reference = values, {}, None

    def __call__(self, workdir, name, inputs, function, shared=None, version=1):
        mark = fingerprint(name, inputs, version)
        if self.reference is not None and self.reference.get(name) != mark:
            raise Changed(name)
        self.marks[name] = mark
        for known, make in self.values.items():
            if name == known or (known.endswith("*") and name.startswith(known[:-1])):
                return StageResult(name, mark, pathlib.Path(), make(inputs), 0.0)
        return StageResult(name, mark, pathlib.Path(), {}, 0.0)

    def write_once(self, folder, spec, parts, *, recipe, **facts):
        """A zoo on the disk counts as a stage: its recipe is compared as inputs are."""
        return self(None, "zoo", recipe, None).path

    def first(self, compute: Callable[[], Any]) -> str | None:
        """The first stage that has another fingerprint than in the first call, or None.

        "refused" of a config that is.
        """
        self.marks = {}
        try:
            compute()
        except Changed as changed:
            return str(changed)
        except UserError:
            return "refused"
        if self.reference is None:
            self.reference = self.marks
        # A stage that is not there any more is a change, too.
        missing = [name for name in self.reference if name not in self.marks]
        return missing[0] if missing else None


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names of all fields, and their values."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def graph_fields(config: ConfigDict) -> list[str]:
    """The fields of encoders of graphs, designs beside included."""
    return [field for field, _ in fields(config) if ".graph." in field]


def changed(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """The config with other values of some fields, by their dotted names."""
    other = config.copy_and_resolve_references()
    other.unlock()
    for field, value in values.items():
        part, *names = other, *field.split(".")
        for name in names[:-1]:
            part = part[name]
        part[names[-1]] = value
    return other


def walked(
    config: ConfigDict,
    compute: Callable[[ConfigDict], Any],
    values: Values,
    others: Mapping[str, Mapping[str, Any]],
    patch: Any,
    module: Any = stages,
    groups: tuple[str, ...] = ("",),
) -> dict[str, str | None]:
    """Field -> the first stage that it changes, or None.

    Args:
      compute: the command's stages, of a config.
      others: field -> the values to try, of this and others, where not any will do.
      patch: pytest's monkeypatch. module: whose `stage` is replaced.
      groups: only fields whose names begin with one of these.
    """
    walk = Walk(values)
    patch.setattr(module, "stage", walk)
    if hasattr(module, "write_once"):
        patch.setattr(module, "write_once", walk.write_once)
    assert walk.first(lambda: compute(config)) is None
    assert len(walk.reference) > 2
    found = {}
    for field, value in fields(config):
        if not field.startswith(groups):
            continue
        values = others[field] if field in others else {field: _other(value)}
        other = changed(config, values)
        found[field] = walk.first(lambda other=other: compute(other))
    return found


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 1.5 * value + 0.125
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple) and value:
        return (*value[:-1], _other(value[-1]))
    raise ValueError(f"say which other value {value!r} may have")
