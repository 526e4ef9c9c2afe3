"""Timings as tables: ours, what is used today, and the fastest PyTorch that was found, side by side."""

from collections.abc import Iterable
from typing import Any

from tasks.common.sheets import Sheet

from .formulations import OF_DRAWS

Record = dict[str, Any]
#: What is used today in the place of each estimator.
TODAY = {
    "straight_through": "plain",
    "gumbel_softmax": "torch",
    "gst": "plain",
    "reinmax": "reinmax",
    "gumbel_rao": "plain",
}
#: Section: its title, and what tells its rows apart beside the estimator.
SECTIONS = {
    "estimators": ("Every estimator, 3000x10", ()),
    "peers": ("Against what is used today, 3000x10", ("compiled",)),
    "shapes": ("Shapes", ("shape", "compiled")),
    "passes": ("Passes", ("shape", "passes")),
    "dtypes": ("Number formats", ("shape", "dtype")),
    "threads": ("Threads", ("shape", "threads")),
    "rows": ("Rows", ("shape",)),
    "columns": ("Categories", ("shape",)),
    "draws": ("Draws, 3000x10", ()),
}


def us(seconds: float) -> str:
    """Microseconds, three figures that count."""
    value = 1e6 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def with_quartiles(record: Record | None) -> str:
    if record is None:
        return "-"
    return f"{us(record['median'])} ({us(record['low'])} to {us(record['high'])})"


def times(record: Record | None, ours: Record) -> str:
    return "-" if record is None else f"{record['median'] / ours['median']:.1f}"


def sheet(section: str, records: Iterable[Record]) -> Sheet | None:
    """Of one section; None if nothing of it was timed."""
    title, keys = SECTIONS[section]
    lines: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in records:
        if record["section"] == section:
            row = (name_of(record), *(cell(record, key) for key in keys))
            lines.setdefault(row, {})[record["who"].removesuffix(", compiled")] = record
    if not lines:
        return None
    has_peers = any(len(line) > 1 for line in lines.values())
    heads = ("today", "times ours", "tuned", "times ours") if has_peers else ()
    rows = []
    for row, line in lines.items():
        ours = line.get("ours")
        if ours is None:
            continue
        today, tuned = line.get(TODAY.get(ours["estimator"], "")), line.get("tuned")
        peers = (with_quartiles(today), times(today, ours), with_quartiles(tuned), times(tuned, ours))
        rows.append((*row, with_quartiles(ours), us(ours["floor"]), *(peers if has_peers else ())))
    return Sheet(title, ("estimator", *keys, "ours, us", "floor", *heads), rows, 1 + len(keys))


def name_of(record: Record) -> str:
    draws = f", {record['draws']} draws" if record["estimator"] in OF_DRAWS else ""
    return f"`{record['estimator']}`{draws}"


def cell(record: Record, key: str) -> str:
    if key == "shape":
        return f"{record['rows']}x{record['columns']}"
    if key == "compiled":
        return "compiled" if record["who"].endswith(", compiled") else "eager"
    return str(record[key])
