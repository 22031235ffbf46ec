"""What the commands' results share: their fields, what stands already, the files of a report."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments import trial
from experiments.stages import Stages
from flown_jax.evaluation.report import html_page
from flown_jax.files import write_bytes, writing
from flown_jax.training.parallel import leads
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import plain_values

REPORT = ("results.md", "report.html")
# Of results that are made again from the same stages, what may be another.
_OF_THE_MAKING = {"seconds", "seconds_of_this_run", "stage_seconds", "peak_memory_gib"}
_OF_THE_MAKING |= {"environment"}


def standing(path: pathlib.Path, results: Mapping[str, Any], *files: str) -> dict[str, Any] | None:
    """The results in a finished run's folder, where they are these; None where they are not.

    Nothing is trusted that stands there: these results come from the stages themselves, which know
    the data that they were made from. Where and when they were made is told by those that stand.
    Of a run of several processes, process 0 alone writes: for the others what it writes stands.

    Args:
      path: the folder. results: as the stages give them now.
      files: of the report, that must be there, too.
    """
    if not leads():
        return json.loads(json.dumps(results))
    try:
        there = json.loads((path / "results.json").read_text())
    except (OSError, ValueError):
        return None
    here = json.loads(json.dumps(results))
    same = isinstance(there, dict) and _made(there) == _made(here)
    return there if same and all((path / file).is_file() for file in files) else None


def _made(results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name not in _OF_THE_MAKING}


def heading(experiment: str, config: ConfigDict, stages: Stages) -> dict[str, Any]:
    """The fields of results.json that every run has, but for its rows."""
    return {
        "experiment": experiment,
        "variant": config.variant,
        "seed": config.seed,
        "fingerprint": stages.fingerprint,
        "seconds": round(stages.seconds, 1),
        "seconds_of_this_run": round(stages.seconds_here, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "environment": environment(),
        "config": plain_values(config),
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
      remarks: sentences below the introduction; that of a run that was cut is the first.
      texts: heading -> table in Markdown. pictures: figure -> caption.
      results: the content of results.json.
    """
    if cut := trial.remark(results.get("variant", "")):
        remarks = [cut, *remarks]
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
