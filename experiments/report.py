"""What the commands' results share: whether a run is finished, and the files of its report."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from flown_jax.errors import UserError
from flown_jax.evaluation.report import html_page
from flown_jax.files import write_bytes, writing
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import plain_values


def finished(path: pathlib.Path, config: ConfigDict) -> dict[str, Any] | None:
    """The results of a finished run with this config in this folder, or None."""
    try:
        stored = json.loads((path / "config.json").read_text())
        results = json.loads((path / "results.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} holds a damaged config.json or results.json: remove the file or choose a new "
            "--workdir."
        ) from error
    return results if stored == json.loads(json.dumps(plain_values(config))) else None


def heading(experiment: str, config: ConfigDict, fingerprint: str, stages: Any) -> dict[str, Any]:
    """The fields of results.json that every run has, but for its rows.

    Args:
      stages: of the run, with their seconds.
    """
    return {
        "experiment": experiment,
        "variant": config.variant,
        "seed": config.seed,
        "fingerprint": fingerprint,
        "seconds": round(stages.seconds, 1),
        "seconds_of_this_run": round(stages.seconds_here, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "environment": environment(),
    }


def write_report(
    workdir: pathlib.Path,
    title: str,
    introduction: str,
    remarks: list[str],
    texts: Mapping[str, str],
    pictures: Mapping[pathlib.Path, str],
    results: Mapping[str, Any],
) -> None:
    """results.md and report.html; results.json last, as the mark of the end.

    Args:
      remarks: sentences below the introduction.
      texts: heading -> table in Markdown. pictures: figure -> caption.
      results: the content of results.json.
    """
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in texts.items())
    notes = "".join(f"- {sentence}\n" for sentence in remarks) + ("\n" if remarks else "")
    page = html_page(title, "\n\n".join([introduction, *remarks]), dict(texts), dict(pictures))
    with writing(workdir):
        write_bytes(
            workdir / "results.md", f"# {title}\n\n{introduction}\n\n{notes}{body}\n".encode()
        )
        write_bytes(workdir / "report.html", page.encode())
        text = json.dumps(results, indent=1) + "\n"
        write_bytes(workdir / "results.json", text.encode())
