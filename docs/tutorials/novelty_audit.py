"""The audit of three folders that strangers may send: disguised copies, averages, new networks.

python docs/tutorials/novelty_audit.py
"""

from __future__ import annotations

import numpy as np

from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.evaluation import audit
from flown_jax.evaluation.vectors import predictions
from flown_jax.weights import zoo
from flown_jax.weights.symmetries import permuted

COLUMNS = ("accuracy", "copies", "nearest", "diversity", "direction_diversity", "length")


def main(folder: str = "zoos/mnist_short", members: int = 80, samples: int = 20) -> dict:
    """Audit the three; returns {(folder, distances): metrics} and prints them as a table."""
    rng = np.random.default_rng(0)
    known = zoo.load(folder, split="train", epochs=[6]).select(np.arange(members))
    spec, weights = known.spec, known.weights
    deviation = weights.std(0)  # of each weight over the zoo

    chosen = weights[rng.choice(members, samples, replace=False)]
    noisy = chosen + 0.1 * deviation * rng.standard_normal(chosen.shape)
    mixes = [rng.choice(members, min(16, members), replace=False) for _ in range(samples)]
    strangers = {
        "copies, in another order of their units": permuted(spec, noisy.astype(np.float32), rng),
        "averages of 16": np.stack([weights[mix].mean(0) for mix in mixes]),
        "other seeds": zoo.load(folder, split="held_out", epochs=[6]).weights[:samples],
    }

    images = image_sets.load("digits", "test", "data")  # handwritten, as MNIST's, but others
    prepare = Preprocessing.from_dict(spec.inputs_dict).apply

    def answers(weights: np.ndarray) -> np.ndarray:
        return predictions(spec, weights, images.images, prepare)

    shown = prepare(image_sets.load("digits", "train", "data").images[:100])
    ways = {
        "as they are": audit.distances_of(spec),
        "units matched": audit.distances_of(spec, shown),
    }
    found = {}
    print("| folder | distances | " + " | ".join(c.replace("_", " ") for c in COLUMNS) + " |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for way, distances in ways.items():
        scale = audit.yard(distances, weights, answers(weights), images.labels)
        for name, made in strangers.items():
            metrics = audit.measure(scale, made, answers(made)).metrics
            found[name, way] = values = {c: metrics[c]["value"] for c in COLUMNS}
            shown_values = " | ".join(f"{values[c]:.2f}" for c in COLUMNS)
            print(f"| {name} | {way} | {shown_values} |", flush=True)
    return found


if __name__ == "__main__":
    main()
