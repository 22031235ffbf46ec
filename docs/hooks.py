"""What mkdocs does not know of these pages."""

from __future__ import annotations

import pathlib
from typing import Any

# Pages with tables of long names, which may break (`site.css`).
_NAMES = ("trust.md",)


def on_config(config: Any) -> Any:
    """Put every page that a command wrote (docs/results/), its index first, before the studies."""
    docs = pathlib.Path(config["docs_dir"])
    pages = sorted((docs / "results").glob("*.md"), key=lambda page: (page.stem != "index", page))
    for section in config["nav"]:
        if "Results" in section:
            section["Results"][:0] = [page.relative_to(docs).as_posix() for page in pages]
    return config


def on_page_content(html: str, page: Any, **kwargs: Any) -> str:
    """Mark pages that `site.css` shows in another way."""
    return f'<div class="names">{html}</div>' if page.file.src_uri in _NAMES else html
