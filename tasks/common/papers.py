"""What the papers print: every table as data, ``paper_tables.json``, the one source of all that is shown as theirs.

GST: Fan, Chi, Rudnicky, Ramadge, "Training Discrete Deep Generative Models via Gapped Straight-Through Estimator", ICML
2022.  BR: Wang, Bui, "Beyond ReinMax: Low-Variance Gradient Estimators for Discrete Latent Variables", arXiv
2603.08257v1, 2026.

What stands behind +- is a standard deviation over seeds in GST (Table 4 does not say) and, by the scripts of its
authors, a standard error over ten seeds in BR.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("paper_tables.json")
NOT_STATED, DEVIATION, ERROR = "not stated", "standard deviation", "standard error"


class Figure(NamedTuple):
    """A cell as it is printed."""

    value: float | None  #: None: an X, "the estimator cannot converge"
    spread: float | None = None  #: behind +-
    kind: str = NOT_STATED  #: of the spread
    seeds: int = 1
    is_doubtful: bool = False  #: the print leaves open whose figure it is

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds, which a single run is held against; None where the paper does not tell."""
        if self.spread is None or self.kind == NOT_STATED:
            return None
        return self.spread * math.sqrt(self.seeds) if self.kind == ERROR else self.spread

    def over(self, other: "Figure") -> float | None:
        """The ratio of the two; None if one of them is an X."""
        return None if self.value is None or other.value is None else self.value / other.value

    def __str__(self) -> str:
        doubt = " (?)" if self.is_doubtful else ""
        if self.value is None:
            return f"X{doubt}"
        # The prints have two decimals of a loss, three of an accuracy or of memory.
        digits = 2 if round(self.value, 2) == self.value and self.value > 1 else 3
        spread = "" if self.spread is None else f" +- {self.spread:.{digits}f}"
        return f"{self.value:.{digits}f}{spread}{doubt}"


def figures(table: str) -> dict[str, dict[str, Figure]]:
    """Row -> column -> figure, of one of the tables with figures: "BR Table 2"."""
    found = _tables()[table]
    kind, seeds, doubtful = found.get("spread", NOT_STATED), found.get("seeds", 1), found.get("doubtful", ())

    def figure(row: str, cell: Any) -> Figure:
        value, spread = (None, None) if cell == "X" else (cell[0], cell[1] if len(cell) > 1 else None)
        return Figure(value, spread, kind, seeds, row in doubtful)

    return {
        row: {column: figure(row, cell) for column, cell in zip(found["columns"], cells, strict=True)}
        for row, cells in found["rows"].items()
    }


def cells(table: str) -> dict[str, dict[str, Any]]:
    """Row -> column -> what a table without figures has there: of BR Table 4 the settings, of GST Table 1 yes or no."""
    found = _tables()[table]
    return {row: dict(zip(found["columns"], cells, strict=True)) for row, cells in found["rows"].items()}


def names() -> tuple[str, ...]:
    """Of the tables."""
    return tuple(_tables())


@functools.cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(_FILE.read_text())
    return tables
