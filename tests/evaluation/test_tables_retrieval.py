"""Rows of generated networks and of fine-tuning as tables: counts, epochs, missing intervals."""

from __future__ import annotations

from flown_jax.evaluation import tables


def row(method, metric, value, ci95=None, n=50, table="retrieval", **more):
    cell = {"table": table, "method": method, "set": "digits", "metric": metric}
    return {**cell, "value": value, "ci95": ci95, "n": n, "over": "networks", **more}


ROWS = [
    row("flown", "diversity", 0.254, 0.01),
    row("flown", "copies", 2),
    row("flown", "accuracy", 0.9512, 0.002),
    row("flown", "accuracy_minus_originals", 0.004, 0.003),
    row("flown", "right_set", 0.99, n=100),
    row("aligned_mean", "accuracy", 0.71, n=1),
    row("aligned_mean", "accuracy_minus_originals", -0.24, n=1),
    row("aligned_mean", "copies", 0, n=1),
]


def test_a_figure_without_an_interval_stands_alone():
    assert tables.text_cell("accuracy", (0.71, None)) == "71.0"
    assert tables.text_cell("accuracy_minus_originals", (0.004, None)) == "+0.4"
    assert tables.text_cell("nn", (0.976, 0.012)) == "0.98 ± 0.01"
    assert tables.text_cell("accuracy", (0.5, None), 0.1) == "50.0, seeds ± 10.0"
    assert tables.text_cell("learning_rate", (0.0003, None)) == "0.0003"


def test_counts_say_of_how_many():
    lines = tables.markdown(ROWS, "digits", "retrieval").splitlines()
    assert lines[0] == (
        "| method | accuracy % | minus originals | copies | diversity | right set % |"
    )
    assert lines[2] == "| `flown` | 95.1 ± 0.2 | +0.4 ± 0.3 | 2 of 50 | 0.25 ± 0.01 | 99.0 |"
    assert lines[3] == "| `aligned_mean` | 71.0 | -24.0 | 0 of 1 |  |  |"
    # The mean of a count over runs is a part of no whole number.
    merged = [row("flown", "copies", 1 / 3, n=150, runs=3)]
    assert "| `flown` | 0.333 |" in tables.markdown(merged, "digits", "retrieval")


def test_epochs_are_in_order_and_the_rate_is_last():
    rows = [row("flown", "learning_rate", 0.003, n=3, table="initialise")]
    rows += [
        row("flown", f"accuracy_epoch_{e}", e / 100, 0.01, 3, "initialise") for e in (25, 0, 5)
    ]
    lines = tables.markdown(rows, "digits", "initialise", first="start").splitlines()
    assert lines[0] == "| start | epoch 0 | epoch 5 | epoch 25 | learning rate |"
    assert lines[2] == "| `flown` | 0.0 ± 1.0 | 5.0 ± 1.0 | 25.0 ± 1.0 | 0.003 |"


def test_the_screen_shows_what_is_chosen(capsys):
    tables.screen(ROWS, {"digits": "Digits"}, "retrieval", ("accuracy", "copies"))
    shown = capsys.readouterr().out
    assert "2 of 50" in shown and "95.1 ± 0.2" in shown and "diversity" not in shown
    tables.screen(ROWS, {"digits": "Digits"}, "retrieval", None, "start")
    shown = capsys.readouterr().out
    assert "diversity" in shown and "start" in shown and "0.25 ±" not in shown
