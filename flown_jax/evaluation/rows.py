"""Tidy rows of results: one number each, and what its interval is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OVER = ("tasks", "networks", "runs", "images", "seeds")


@dataclass(frozen=True)
class Sample:
    """What numbers are means over; every row is made by one.

    Attributes:
      over: what is drawn again in thought, one of OVER; `n` of a row counts these.
      unit: fingerprint of what was drawn, or drawn from: rows of the same unit share their errors,
        so that a mean over them is no surer than one of them.
    """

    over: str
    unit: str

    def __post_init__(self) -> None:
        if self.over not in OVER or not self.unit:
            raise ValueError(
                f"a row is over one of {', '.join(OVER)} of a unit, not {self.over!r} of "
                f"{self.unit!r}."
            )

    def row(
        self,
        table: str,
        method: str,
        set_name: str,
        metric: str,
        value: float,
        ci95: float | None,
        n: int,
    ) -> dict[str, Any]:
        """A row as results.json holds it.

        Args:
          table, method, set_name, metric: whose number it is.
          value: the number. ci95: half width of its 95 % interval; None where there is none.
          n: how many tasks, networks, ... it is of.
        """
        return {
            "table": table,
            "method": method,
            "set": set_name,
            "metric": metric,
            "value": value,
            "ci95": ci95,
            "n": n,
            "over": self.over,
            "unit": self.unit,
        }
