"""What the papers print: their tables as data, ``paper_tables.json``, the one source of all that is shown as theirs.

GST: Fan, Chi, Rudnicky, Ramadge, "Training Discrete Deep Generative Models via Gapped Straight-Through Estimator", ICML
2022.
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("paper_tables.json")


class Figure(NamedTuple):
    """A cell as it is printed."""

    value: float | None  #: None: an X, "the estimator cannot converge"
    spread: float | None = None  #: behind +-


def figures(table: str) -> dict[str, dict[str, Figure]]:
    """Row -> column -> figure of a table: "GST Table 6"."""
    found = _tables()[table]
    return {
        row: {
            column: Figure(None) if cell == "X" else Figure(*cell)
            for column, cell in zip(found["columns"], cells, strict=True)
        }
        for row, cells in found["rows"].items()
    }


@functools.cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(_FILE.read_text())
    return tables
