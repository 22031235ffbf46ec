"""A griffe extension for the form of these docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"\n(?=(Args|Returns|Raises|Attributes):\n)")
_ATTRIBUTES = re.compile(r"(?<=Attributes:\n)(?:.+\n?)+")
_NAMES = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)", re.MULTILINE)


class Sections(griffe.Extension):
    """Puts in the blank lines that griffe wants before a section, and gives each attribute a line.

    Of `mean, std: ...` griffe takes the second name for the type of the first.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            text = _SECTION.sub("\n\n", obj.docstring.value)
            obj.docstring.value = _ATTRIBUTES.sub(lambda m: _NAMES.sub(_apart, m[0]), text)


def _apart(match: re.Match[str]) -> str:
    indent, names, rest = match.groups()
    return "\n".join(f"{indent}{name}{rest}" for name in names.split(", "))
