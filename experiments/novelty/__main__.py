"""Audits generated networks: are they new, or copies of what the generator learned from?

    python -m experiments.novelty ZOO_A ZOO_B --data=mnist

ZOO_A is what a generator learned from, ZOO_B what it made: each a zoo of this library, a folder of
weights that `import_zoo` reads (ModelZoos, p-diff, PyTorch or safetensors state dicts), or a file
of vectors (.npy, .npz or .safetensors with one matrix, a network a row, in the order of the other
zoo). Both of one network. Written are results.md, report.html with its figure, and results.json.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.command import one_sentence
from experiments.novelty.arguments import parser
from experiments.novelty.measure import measured
from experiments.novelty.read import both
from experiments.novelty.report import free, screen, write
from flown_jax.data import image_sets
from flown_jax.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit as the command line says; a user's mistake is one sentence and exit status 2."""
    with one_sentence():
        started = time.monotonic()
        given = parser(__doc__ or "").parse_args(arguments)
        name = f"novelty-{Path(given.zoo_a).stem}-{Path(given.zoo_b).stem}"
        workdir = free(Path(given.workdir or Path("workdirs") / name))
        zoo_a, zoo_b = both(given)
        images = image_sets.load(given.data, given.split, given.data_dir)
        if not (images.labels >= 0).all():
            raise UserError(f"the split {given.split!r} of {given.data} has images without labels.")
        classes = zoo_a.spec.sizes_dict.get("num_classes")
        if classes != len(images.class_names):
            raise UserError(
                f"the networks tell {classes} classes apart, and {given.data} has "
                f"{len(images.class_names)}."
            )
        for what, zoo in (("A", zoo_a), ("B", zoo_b)):
            dropped = int((~np.isfinite(zoo.weights).all(1)).sum())
            note = f", {dropped} of them not finite" if dropped else ""
            print(f"{what}: {zoo.path}: {len(zoo):,} networks{note}", flush=True)
        found = measured(given, zoo_a, zoo_b, images)
        results = write(workdir, given, zoo_a, zoo_b, found, time.monotonic() - started)
        screen(results)
        print(f"wrote {workdir / 'report.html'}")


if __name__ == "__main__":
    main()
