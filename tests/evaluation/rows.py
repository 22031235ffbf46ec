"""Rows that the tests of tables, figures and reports share."""

from __future__ import annotations

SETS = {"near": "Near & known", "far": "Far"}
# (method, metric): (value, half width); `late` has no ECE, and the far set has no `late`.
FIGURES = {
    ("linear_probe", "accuracy"): (0.5, 0.02),
    ("linear_probe", "accuracy_minus_probe"): (0.0, 0.0),
    ("linear_probe", "nll"): (1.25, 0.1),
    ("linear_probe", "ece"): (0.125, 0.01),
    ("late", "accuracy"): (0.461, 0.0314),
    ("late", "accuracy_minus_probe"): (-0.039, 0.011),
    ("late", "nll"): (1.5, 0.05),
}


def rows(table: str = "main") -> list[dict]:
    return [
        {
            "table": table,
            "method": method,
            "set": name,
            "metric": metric,
            "value": value,
            "ci95": half,
            "n": 9,
            "over": "tasks",
            "unit": "u",
        }
        for name in SETS
        for (method, metric), (value, half) in FIGURES.items()
        if name == "near" or method != "late"
    ]
