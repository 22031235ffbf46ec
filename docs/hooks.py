"""Pages that commands write (docs/results/) join the site's table of contents by themselves."""

from __future__ import annotations

import pathlib
from typing import Any


def on_config(config: Any) -> Any:
    """Put every page of docs/results/, its index first, before the studies."""
    docs = pathlib.Path(config["docs_dir"])
    pages = sorted((docs / "results").glob("*.md"), key=lambda page: (page.stem != "index", page))
    for section in config["nav"]:
        if "Results" in section:
            section["Results"][:0] = [page.relative_to(docs).as_posix() for page in pages]
    return config
