"""What the import leaves: a zoo on the disk, and a report."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from flown_jax.files import writing
from flown_jax.weights import zoo
from flown_jax.weights.importers import Imported


def write(target: Path, found: Imported) -> None:
    """Write a new zoo, whole or not at all.

    Raises:
      UserError: two models cannot be told apart, or the disk refuses.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # A part of the name: the whole one may be as long as names can be.
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent))
        try:
            zoo.create(
                scratch / "zoo",
                found.spec,
                dataset=found.dataset,
                recipe=found.recipe,
                base=found.base,
                buffers_spec=found.buffers_spec,
            )
            zoo.add(scratch / "zoo", found.weights, found.rows, found.buffers)
            os.rename(scratch / "zoo", target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def report(target: Path, found: Imported) -> str:
    """What was found, written and skipped."""
    splits = [row["split"] for row in found.rows]
    counts = f"{splits.count('train')} to train on and {splits.count('held_out')} held out"
    accuracies = [row["test_accuracy"] for row in found.rows if row["test_accuracy"] is not None]
    lines = [
        f"found: {len(found.rows)} models of {found.spec.model} with {found.spec.size:,} weights, "
        f"for {found.dataset}",
        f"wrote: {target}, {counts}",
    ]
    if accuracies:
        lines.append(
            f"test accuracy: mean {np.mean(accuracies):.4f}, from {min(accuracies):.4f} to "
            f"{max(accuracies):.4f}"
        )
    if not found.spec.inputs_dict:
        lines.append("the preprocessing of the images is not recorded: --inputs was not given")
    lines.append(f"skipped: {len(found.skipped)}")
    return "\n".join([*lines, *(f"  {sentence}" for sentence in found.skipped)])
