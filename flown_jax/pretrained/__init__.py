"""Small trained meta-models that come with the package: a folder each, with its card.

`card.md` in a folder says what it was trained on, by which command, what it is worth and what it is
not; `python -m experiments.export_model WORKDIR --to=FOLDER` makes such folders.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from flown_jax.errors import UserError

CARD = "card.md"
_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the meta-models, sorted."""
    return sorted(path.parent.name for path in _HERE.glob(f"*/{CARD}"))


def folder(name: str) -> Path:
    """The folder of a meta-model.

    Raises:
      UserError: an unknown name; the sentence has all names and the nearest.
    """
    known = names()
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, 1, 0.0)
        raise UserError(
            f"there is no pretrained meta-model {name!r:.60}; there are {', '.join(known)}"
            f"{f', and the nearest is {nearest[0]}' if nearest else ''}."
        )
    return _HERE / name


def card(name: str) -> str:
    """The card of a meta-model, Markdown.

    Raises:
      UserError: an unknown name.
    """
    return (folder(name) / CARD).read_text(encoding="utf-8")
