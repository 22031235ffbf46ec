"""A griffe extension for docstrings whose sections follow each other without a blank line."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"\n(?=(Args|Returns|Raises|Attributes):\n)")


class Sections(griffe.Extension):
    """Puts the blank lines in that griffe wants before a section."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _SECTION.sub("\n\n", obj.docstring.value)
