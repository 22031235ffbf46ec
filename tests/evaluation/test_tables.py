"""Rows as tables: units, signs, the order of methods and metrics, gaps."""

from __future__ import annotations

from flown_jax.evaluation import tables
from tests.evaluation.rows import SETS, rows


def test_a_table_holds_one_set_of_one_table_in_the_order_of_the_rows():
    mixed = [*rows("other"), *rows()[::-1]]
    cells = tables.pivot(mixed, "near", "main")
    assert list(cells) == ["late", "linear_probe"]
    assert cells["late"]["nll"] == (1.5, 0.05)
    assert list(tables.pivot(mixed, "far", "main")) == ["linear_probe"]
    assert tables.pivot(mixed, "near", "absent") == {}
    # Columns have an order of their own.
    assert tables.columns(cells) == ["accuracy", "accuracy_minus_probe", "nll", "ece"]


def test_shares_are_percentages_and_differences_have_a_sign():
    assert tables.text_cell("accuracy", (0.461, 0.0314)) == "46.1 ± 3.1"
    assert tables.text_cell("accuracy_minus_probe", (0.039, 0.011)) == "+3.9 ± 1.1"
    assert tables.text_cell("accuracy_minus_probe", (-0.039, 0.011)) == "-3.9 ± 1.1"
    assert tables.text_cell("nll", (1.5, 0.05)) == "1.500 ± 0.050"
    assert tables.text_cell("ece", (0.125, 0.01)) == "12.5 ± 1.0"
    assert tables.text_cell("nll_minus_regression", (0.02, 0.005)) == "+0.020 ± 0.005"
    assert tables.text_cell("ece", None) == ""
    assert tables.text_cell("accuracy", (0.489, 0.007), 0.012) == "48.9 ± 0.7, seeds ± 1.2"
    assert tables.text_cell("accuracy_minus_probe", (0.0, 0.01), 0.02) == "+0.0 ± 1.0, seeds ± 2.0"
    # A metric without a form of its own is shown all the same.
    assert tables.text_cell("came_out_mnist", (0.5, None)) == "50.0"
    assert tables.text_cell("loss_std", (0.0123456, None)) == "0.0123"


def test_markdown_has_a_line_a_method_and_a_cell_a_column():
    lines = tables.markdown(rows(), "near", remarks={"late": "came late"}).splitlines()
    assert lines[0] == "| method | accuracy % | minus probe | NLL | ECE % | remark |"
    assert (
        lines[2] == "| `linear_probe` | 50.0 ± 2.0 | +0.0 ± 0.0 | 1.250 ± 0.100 | 12.5 ± 1.0 |  |"
    )
    assert lines[3] == "| `late` | 46.1 ± 3.1 | -3.9 ± 1.1 | 1.500 ± 0.050 |  | came late |"
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "remark" not in tables.markdown(rows(), "near")


def test_a_table_shows_the_chosen_metrics_in_its_own_order():
    lines = tables.markdown(rows(), "near", shown=("nll", "accuracy")).splitlines()
    assert lines[0] == "| method | accuracy % | NLL |"
    assert lines[2] == "| `linear_probe` | 50.0 ± 2.0 | 1.250 ± 0.100 |"
    # Other differences than the probe's are left to a table of their own.
    more = [{**rows()[0], "metric": "accuracy_minus_caml"}, *rows()]
    everything = tables.markdown(rows(), "near")
    assert tables.markdown(more, "near", shown=tables.SUMMARY) == everything
    assert "minus CAML" in tables.markdown(more, "near")


def test_differences_of_a_method_have_a_line_a_rival_and_a_column_a_set():
    def row(name, metric, value, method="late", table="main"):
        cell = {
            "set": name,
            "metric": metric,
            "value": value,
            "ci95": 0.01,
            "n": 9,
            "over": "tasks",
        }
        return {"table": table, "method": method, **cell}

    found = [
        row("near", "accuracy_minus_caml", -0.02),
        row("near", "accuracy_minus_ridge", 0.03),
        row("far", "accuracy_minus_ridge", 0.05),
        row("near", "accuracy", 0.5),
        row("near", "nll_minus_regression", -0.1),
        row("near", "accuracy_minus_logistic", 0.9, method="other"),
        row("far", "accuracy_minus_probe", 0.9, table="other"),
    ]
    lines = tables.differences(found, SETS, "main", "late").splitlines()
    assert lines == [
        "| `late` | Near & known | Far |",
        "|---|---|---|",
        "| minus ridge | +3.0 ± 1.0 | +5.0 ± 1.0 |",
        "| minus CAML | -2.0 ± 1.0 |  |",
    ]


def test_a_mean_over_runs_shows_its_seeds_in_its_own_table_only():
    first, *others = rows()
    mean = {**first, "seeds": 0.03}
    mixed = [mean, *others, *rows("other")]
    lines = tables.markdown(mixed, "near").splitlines()
    assert lines[2].startswith("| `linear_probe` | 50.0 ± 2.0, seeds ± 3.0 | +0.0 ± 0.0 |")
    assert lines[3] == tables.markdown(rows(), "near").splitlines()[3]
    for name, table in (("far", "main"), ("near", "other")):
        assert tables.markdown(mixed, name, table) == tables.markdown(
            [*rows(), *rows("other")], name, table
        )


def test_a_note_says_what_the_intervals_are_over():
    about = "± is the half width of the 95 % interval over 9 tasks."
    assert tables.note(rows(), ["near"], "main") == about
    few = {**rows()[0], "over": "networks", "n": 80}
    more = {**few, "n": 1200, "metric": "nll"}
    mixed = [*rows(), few, more, {**more, "set": "far", "n": 7}, {**more, "ci95": None, "n": 8}]
    words = tables.note(mixed, ["near"], "main", what="the standard deviation")
    assert words == "± is the standard deviation over 9 tasks and 80 to 1,200 networks."
    assert tables.note(mixed, ["near"], "main", ("ece",)) == about
    assert tables.note(mixed, ["near"], "other") == tables.note([], ["near"], "main") == ""


def test_metrics_without_a_form_come_last():
    strange = {**rows()[0], "metric": "distance"}
    lines = tables.markdown([strange, *rows()], "near").splitlines()
    assert lines[0] == "| method | accuracy % | minus probe | NLL | ECE % | distance |"


def test_the_screen_shows_every_set_within_80_columns(capsys):
    tables.screen(rows(), SETS)
    shown = capsys.readouterr().out
    for text in (
        *SETS.values(),
        "linear_probe",
        "late",
        "46.1 ± 3.1",
        "-3.9 ± 1.1",
        "12.5",
        "over 9 tasks",
    ):
        assert text in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_what_takes_the_best_by_test_labels_is_known():
    for method, metric, chosen in (
        ("flown_top3_query", "nll", True),
        ("flown_top3_support", "accuracy", False),
        ("flown", "accuracy_top5", True),
        ("flown", "accuracy_max_minus_originals", True),
        ("flown", "accuracy", False),
    ):
        assert tables.chosen_on_test(method, metric) is chosen
    assert {"top 5", "best"} <= tables.CHOSEN_HEADINGS and "min" not in tables.CHOSEN_HEADINGS
    assert tables.heading("accuracy_top5") == "top 5"
