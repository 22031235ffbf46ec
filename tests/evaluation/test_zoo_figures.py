"""The picture of a zoo: its panels for few and many epochs, and zoos with little in them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flown_jax.evaluation import zoo_figures
from flown_jax.evaluation.figures import new_figure
from flown_jax.weights import statistics
from flown_jax.weights.zoo import Zoo
from tests.evaluation.test_figures import picture
from tests.parity.fixtures import ROOT
from tests.weights import small

SPEC = small.spec()


def zoo(seeds=range(4), epochs=(1, 2), held_out=(3,), **fields) -> Zoo:
    table = [row for e in epochs for row in small.rows(seeds, e, held_out, **fields)]
    weights = np.concatenate([small.vectors(seeds, SPEC.size, e) for e in epochs])
    columns = {key: [row[key] for row in table] for key in table[0]}
    return Zoo(weights, SPEC, columns, "digits", {})


def panel():
    figure, axes = new_figure(1, 1, (4, 4))
    return figure, axes[0, 0]


@pytest.mark.parametrize(
    "made",
    [zoo(), zoo(epochs=range(20)), zoo(seeds=[1], epochs=[1]), zoo(test_accuracy=None)],
    ids=["points", "lines", "single", "without accuracies"],
)
def test_every_zoo_has_a_picture(tmp_path, made):
    zoo_figures.overview(tmp_path / "new" / "zoo.png", made, title="digits")
    assert picture(tmp_path / "new" / "zoo.png").size > 100_000


def test_few_epochs_show_every_network_and_many_a_line():
    made = zoo()
    _, axis = panel()
    zoo_figures.accuracy_panel(axis, made.table)
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert sorted(len(line.get_ydata()) for line in dots) == [1, 1, 3, 3]
    assert min(min(line.get_ydata()) for line in dots) == 50.0
    assert axis.get_ylabel() == "test accuracy, %"
    _, axis = panel()
    zoo_figures.accuracy_panel(axis, zoo(epochs=range(20)).table)
    assert [len(line.get_ydata()) for line in axis.lines] == [20, 20]


def test_the_best_measured_accuracy_is_shown():
    table = {"test_accuracy": [None], "validation_accuracy": [0.5], "train_accuracy": [0.9]}
    assert zoo_figures.best_column(table) == "validation_accuracy"
    assert zoo_figures.best_column({"test_accuracy": [None]}) is None


def test_networks_are_sorted_by_split_seed_and_epoch():
    table = {
        "split": ["train", "held_out", "train", "train", "train"],
        "seed": [2, 1, 2, None, 1],
        "epoch": [5, 1, 3, 1, 1],
    }
    assert zoo_figures.sorted_networks(table, 9) == [3, 4, 2, 0, 1]
    assert zoo_figures.sorted_networks(table, 2) == [3, 1]


def test_a_tensor_has_its_name_and_its_range():
    made = zoo()
    tensors = statistics.tensors(made.weights, made.spec)
    _, axis = panel()
    zoo_figures.tensor_panel(axis, tensors)
    assert [label.get_text() for label in axis.get_yticklabels()] == list(made.spec.names)
    thin = axis.collections[0].get_segments()
    first = tensors[made.spec.names[0]]
    np.testing.assert_allclose(thin[0][:, 0], [first.smallest, first.largest])


def test_the_diagonal_of_the_distances_is_left_out():
    made = zoo(epochs=[1])
    figure, axis = panel()
    zoo_figures.distance_panel(
        figure, axis, statistics.distances(made.weights), made.table["split"]
    )
    shown = axis.images[0].get_array().filled(np.nan)
    assert np.isnan(np.diag(shown)).all() and np.isfinite(shown[0, 1:]).all()
    texts = {text.get_text() for text in axis.texts}
    assert texts == {"training (3)", "held out (1)"}


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, flown_jax.evaluation.zoo_figures; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
