"""``table gst-6``: test accuracy on ListOps by estimator and temperature, the paper's beside ours.

Source: Fan et al., ICML 2022, Table 6. Its accuracies are means over five seeds, +- their standard deviation; of which
lines, it does not say.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from tasks.common import papers, sheets
from tasks.common.errors import RunError
from tasks.common.sheets import Sheet, printed

from .results import Result

TABLES = {"gst-6": "GST Table 6"}
HEADER = ("column", "method", "paper", "ours", "seeds", "difference", "in paper's std", "parse F1", "depth")

#: Of each row, the estimator and its hyper-parameters but the temperature, which the column has.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "STGS": ("gumbel_softmax", {}),
    "GR-MC100": ("gumbel_rao", {"num_samples": 100}),
    "GST-0.8": ("gst", {"gap": 0.8}),
    "GST-1.0": ("gst", {"gap": 1.0}),
    "GST-1.2": ("gst", {"gap": 1.2}),
    "GST-pi": ("gst", {"gap": "pi"}),
}


class Cell(NamedTuple):
    """One run of a table."""

    column: str
    method: str
    seed: int

    @property
    def estimator(self) -> str:
        return METHODS[self.method][0]

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        return {"tau": float(self.column.removeprefix("tau=")), **METHODS[self.method][1]}

    def directory(self, out: Path) -> Path:
        return out / f"{self.method}-{self.column}-{self.seed}"


def methods(name: str) -> tuple[str, ...]:
    """The rows of a table, as the paper has them."""
    return tuple(papers.figures(TABLES[name]))


def columns(name: str) -> tuple[str, ...]:
    return tuple(next(iter(papers.figures(TABLES[name]).values())))


def cells(methods: Sequence[str], columns: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Every run, the first seed of all cells before the second of any, so that a table that is stopped has them all."""
    for seed in range(seeds):
        for column in columns:
            for method in methods:
                yield Cell(column, method, seed)


def show(name: str, found: Sequence[Result], path: Path, console: Console, compare: bool = True) -> None:
    """Print a table from the results of its runs, and write it to ``path`` as Markdown if there are any.

    Args:
        name: of the table.
        found: results of runs of equal settings.
        path: of the Markdown.
        console: to print on.
        compare: whether the paper's figures belong beside them.

    Raises:
        RunError: the results are of different training, validation or test lines.
    """
    title = f"{TABLES[name]}: test accuracy"
    sheet = Sheet(title, HEADER, lines(name, found, compare), names=2)
    sheets.write(path if found else None, title, notes(found), [sheet], console)


def lines(name: str, found: Sequence[Result], compare: bool = True) -> list[tuple[str, ...]]:
    """The table's cells, as ``HEADER`` has them, by column; those without a run too."""
    paper = papers.figures(TABLES[name]) if compare else {}
    return [
        _line(
            column,
            method,
            paper.get(method, {}).get(column),
            [r for r in found if (r.column, r.method) == (column, method)],
        )
        for column in columns(name)
        for method in methods(name)
    ]


def _line(column: str, method: str, paper: papers.Figure | None, runs: Sequence[Result]) -> tuple[str, ...]:
    if not runs:
        return column, method, printed(paper), "not run", "0", "-", "-", "-", "-"
    accuracy, f1, depth = ([run.figures[f"test_{key}"] for run in runs] for key in ("accuracy", "f1", "depth"))
    mean = statistics.fmean(accuracy)
    gap = None if paper is None or paper.value is None else mean - paper.value
    difference = "-" if gap is None else f"{gap:+.3f}"
    scaled = "-" if gap is None or paper is None or not paper.std else f"{gap / paper.std:+.1f}"
    shown = (_mean(accuracy, 3), str(len(runs)), difference, scaled, _mean(f1, 2), f"{statistics.fmean(depth):.1f}")
    return column, method, printed(paper), *shown


def _mean(values: Sequence[float], digits: int) -> str:
    spread = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def notes(found: Sequence[Result]) -> list[str]:
    """What the figures are of: test lines, settings, and the F1 of trees that know nothing of a line."""
    kinds = (
        "paper: mean +- standard deviation over five seeds, of lines that it does not name. ours: mean +- sample "
        "standard deviation over seeds if there are several."
    )
    if not found:
        return [kinds]
    if len({run.data for run in found}) > 1:
        raise RunError(
            f"results: hold runs of {len({run.data for run in found})} sets of lines, allowed: one; with --train the "
            "table is of the lines of --data-dir and --test-file"
        )
    first = found[0]
    figures = first.figures
    which = f"{'published' if first.is_published else 'generated'} test set's {figures['test_lines']:.0f} lines"
    baselines = ", ".join(f"{figures[f'test_f1_{kind}']:.2f} {kind}" for kind in ("random", "left", "right"))
    shown = ", ".join(f"{name} {value}" for name, value in first.settings.items())
    return [
        kinds,
        f"On the {which} of up to {first.settings['max_tokens']} tokens. Parse F1 of trees that do not look at the "
        f"line: {baselines} (branching).",
        f"ours: {shown}." + (" The paper's setting is --preset paper." if first.settings["preset"] != "paper" else ""),
    ]
