"""Timings as tables: ours, what is used today, and the fastest PyTorch that was found, side by side."""

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
PEERS = ("today", "times ours", "tuned", "times ours")
#: Section: its title, and what tells its rows apart beside the estimator.
SECTIONS = {
    "estimators": ("Every estimator", ("shape",)),
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


def with_quartiles(record: Record | None, otherwise: str = "-") -> str:
    if record is None:
        return otherwise
    return f"{us(record['median'])} ({us(record['low'])} to {us(record['high'])})"


def times(record: Record | None, ours: Record) -> str:
    return "-" if record is None else f"{record['median'] / ours['median']:.1f}"


def sheet(section: str, results: dict[str, Any]) -> Sheet | None:
    """Of one section; None if nothing of it was timed."""
    title, keys = SECTIONS[section]
    failed = {(r["estimator"], r["who"], r["dtype"]) for r in results["parity"] if r["fault"]}
    lines: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in results["speed"]:
        if record["section"] == section:
            row = (name_of(record), *(cell(record, key) for key in keys))
            lines.setdefault(row, {})[record["who"].removesuffix(", compiled")] = record
    if not lines:
        return None
    has_peers = any(len(line) > 1 for line in lines.values())
    counted = results["instructions"]["counts"] if section == "estimators" else {}
    heads = [*(["instructions an element"] if counted else []), *(PEERS if has_peers else [])]
    rows = []
    for row, line in lines.items():
        ours = line.get("ours")
        if ours is None:
            continue
        cells = [with_quartiles(ours), us(ours["floor"])]
        cells += [instructions(ours, counted)] if counted else []
        for who in (TODAY.get(ours["estimator"], ""), "tuned") if has_peers else ():
            given = f"{who}, compiled" if ours["who"].endswith(", compiled") else who
            fails = (ours["estimator"], given, ours["dtype"]) in failed
            cells += [with_quartiles(line.get(who), "fails" if fails else "-"), times(line.get(who), ours)]
        rows.append((*row, *cells))
    return Sheet(title, ("estimator", *keys, "ours, us", "floor, us", *heads), rows, 1 + len(keys))


def instructions(record: Record, counted: dict[str, float]) -> str:
    """Of the sample and the gradient, where both were counted for such rows."""
    rows = f"rows of {record['columns']}, {record['dtype']}"
    found = [counted.get(f"{kernel}, {rows}") for kernel in ("sample", record["estimator"])]
    if record["estimator"] in OF_DRAWS or None in found:
        return "-"
    return f"{sum(count for count in found if count is not None):.1f}"


def name_of(record: Record) -> str:
    count = record["draws"]
    draws = f", {count} draw{'s' * (count > 1)}" if record["estimator"] in OF_DRAWS else ""
    return f"`{record['estimator']}`{draws}"


def cell(record: Record, key: str) -> str:
    if key == "shape":
        return f"{record['rows']}x{record['columns']}"
    if key == "compiled":
        return "compiled" if record["who"].endswith(", compiled") else "eager"
    return str(record[key])
