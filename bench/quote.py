"""Figures of the committed report, in README.md and the estimators' pages: below every ``<!-- bench: NAME -->``.

python -m bench.quote
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.common import files
from tasks.common.sheets import Sheet

from .formulations import OF_DRAWS
from .speed_tables import TODAY, Record, times, us
from .targets import only

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "report.json"
Results = dict[str, Any]

#: The rows of README's table: words, estimator, section and shape.
FIRST = (
    ("`gumbel_softmax(hard=True)` 3000x10, against `F.gumbel_softmax`", "gumbel_softmax", "peers", "3000x10"),
    ("the same, 64x8192", "gumbel_softmax", "shapes", "64x8192"),
    ("the same, 4x10", "gumbel_softmax", "shapes", "4x10"),
    ("`straight_through` 3000x10, against plain PyTorch", "straight_through", "peers", "3000x10"),
    ("the same, 30000x10", "straight_through", "shapes", "30000x10"),
    ("the same, 64x8192", "straight_through", "shapes", "64x8192"),
    ("`gst` 3000x10, likewise", "gst", "peers", "3000x10"),
    ("`reinmax` 3000x10, against the PyPI package `reinmax`", "reinmax", "peers", "3000x10"),
    ("`gumbel_rao`, 100 draws, 3000x10, against one that materialises its draws", "gumbel_rao", "peers", "3000x10"),
)


def speed(results: Results) -> str:
    """README's table."""
    rows = []
    for words, estimator, section, shape in FIRST:
        ours, today, tuned = (
            _record(results, estimator, who, section, shape) for who in ("ours", TODAY[estimator], "tuned")
        )
        if ours is not None:
            rows.append((words, time(ours), time(today), times(today, ours), time(tuned), times(tuned, ours)))
    header = (
        "forward + backward, float32, one thread",
        "ours",
        "today",
        "times faster",
        "tuned PyTorch",
        "times faster",
    )
    return "\n".join(Sheet("", header, rows).markdown())


def machine(results: Results) -> str:
    about = results["about"]
    figures = "([figures](bench/results/report.md), `make bench` measures yours)"
    return f"On one core of an {about['device'].partition(',')[0]}, at commit {about['commit']} {figures}:"


def memory(results: Results) -> str:
    def held(who: str, draws: int) -> str:
        found = only(results["memory"], "bytes", estimator="gumbel_rao", who=who, draws=draws)
        assert found is not None
        return f"{found / 2**20:.2f} MiB" if found < 2**23 else f"{found / 2**20:.0f} MiB"

    few, more, many = (held("ours", draws) for draws in (1, 100, 1000))
    return (
        f"`gumbel_rao` at 3000x10 holds {few} beside its inputs with one draw, {more} with 100 and {many} with 1000;\n"
        f"a formulation that materialises its draws holds {held('plain', 1000)} with 1000."
    )


def page(estimator: str) -> Callable[[Results], str]:
    """The table of an estimator's page: as it is, float32, forward + backward."""

    def table(results: Results) -> str:
        rows = []
        for ours in results["speed"]:
            if (ours["estimator"], ours["who"]) != (estimator, "ours") or ours["section"] not in (
                "peers",
                "shapes",
                "threads",
            ):
                continue
            shape = f"{ours['rows']}x{ours['columns']}"
            draws = (str(ours["draws"]),) if estimator in OF_DRAWS else ()
            others = [
                _record(results, estimator, who, ours["section"], shape, ours["threads"])
                for who in (TODAY[estimator], "tuned")
            ]
            compared = [text for other in others for text in (time(other), times(other, ours))]
            rows.append((shape, *draws, str(ours["threads"]), time(ours), *compared))
        draws = ("draws",) if estimator in OF_DRAWS else ()
        header = ("shape", *draws, "threads", "ours", "today", "times faster", "tuned PyTorch", "times faster")
        return "\n".join(Sheet("", header, rows).markdown())

    return table


QUOTES: dict[str, Callable[[Results], str]] = {
    "speed": speed,
    "machine": machine,
    "memory": memory,
    **{estimator: page(estimator) for estimator in TODAY},
}


def time(record: Record | None) -> str:
    """In microseconds, or milliseconds."""
    if record is None:
        return "-"
    return f"{us(record['median'])} us" if record["median"] < 1e-3 else f"{us(record['median'] / 1e3)} ms"


def page_text(text: str, results: Results) -> str:
    """A page with the blocks that its marks ask for: a paragraph or a table each."""
    return re.sub(
        r"(<!-- bench: (\w+) -->\n\n)(?:.+\n)+",
        lambda match: f"{match[1]}{QUOTES[match[2]](results)}\n",
        text,
    )


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _record(results: Results, estimator: str, who: str, section: str, shape: str, threads: int = 1) -> Record | None:
    rows, columns = map(int, shape.split("x"))
    wanted = {
        "estimator": estimator,
        "who": who,
        "section": section,
        "rows": rows,
        "columns": columns,
        "threads": threads,
    }
    return next((r for r in results["speed"] if all(r[key] == value for key, value in wanted.items())), None)


def main() -> None:
    if not RESULTS.exists():
        raise SystemExit(
            f"{RESULTS.relative_to(ROOT)} is not there: python -m bench --full --out {RESULTS.parent.relative_to(ROOT)}"
        )
    results = json.loads(RESULTS.read_text())
    for path in pages():
        old = path.read_text()
        if (new := page_text(old, results)) != old:
            files.write_text(path, new)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
