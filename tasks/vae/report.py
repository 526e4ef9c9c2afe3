"""A table's results beside the paper's: on the console, as Markdown, as a plot."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tasks.common import papers, sheets
from tasks.common.sheets import Sheet

from .results import Result
from .tables import TABLES

OWN = ("split", "column", "method", "-ELBO", "seeds", "least", "most")  #: of a table that is no paper's
HEADER = ("split", "column", "method", "paper", "ours", "seeds", "difference", "in paper's std")
OURS = (
    "ours: mean, +- standard deviation over seeds if several; collapsed: seeds whose code carries nothing (KL "
    "below half a nat), in the mean only if all are; X: a figure was not finite, in brackets the first such epoch."
)
PAPERS = (
    "paper: as printed; its +- is a standard deviation over seeds in GST (Table 4 does not say), a standard error over "
    "ten in BR; X: cannot converge, which a collapsed or failed run of ours is too; (?): the print leaves it open. -: "
    "not printed, or of other data or epochs."
)


class Cell(NamedTuple):
    """A cell of a table: our figures, one a seed, and the paper's."""

    split: str
    column: str
    method: str
    trained: list[float]  # of the seeds that ended well
    collapsed: list[float]
    failed: list[int]  # the epochs in which the other seeds failed
    paper: papers.Figure | None

    @property
    def values(self) -> list[float]:
        """What the mean is of."""
        return self.trained or self.collapsed

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    def text(self) -> tuple[str, ...]:
        """As ``HEADER`` has it."""
        paper = "-" if self.paper is None else str(self.paper)
        return self.split, self.column, self.method, paper, self._ours(), self._seeds(), *self._difference()

    def own(self) -> tuple[str, ...]:
        """As ``OWN`` has it."""
        ends = (_number(end(self.values)) if self.values else "-" for end in (min, max))
        return self.split, self.column, self.method, self._ours(), self._seeds(), *ends

    def _ours(self) -> str:
        ours = [] if self.mean is None else [_number(self.mean)]
        if len(self.values) > 1:
            ours.append(f"+- {_number(statistics.stdev(self.values))}")
        if self.collapsed:
            ours.append(f"({len(self.collapsed)} collapsed)")
        ours += [f"X ({epoch})" for epoch in self.failed]
        return " ".join(ours)

    def _seeds(self) -> str:
        return str(len(self.trained) + len(self.collapsed) + len(self.failed))

    def _difference(self) -> tuple[str, str]:
        """In nats and in standard deviations over the paper's seeds."""
        if self.paper is None:
            return "-", "-"
        if self.paper.value is None:
            return ("trains", "-") if self.trained else ("X too", "-")
        if self.mean is None:
            return "-", "-"
        gap, std = self.mean - self.paper.value, self.paper.std
        return f"{gap:+.2f}", "-" if std is None else f"{gap / std:+.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def cells(name: str, found: Sequence[Result], compare: bool = True) -> list[Cell]:
    """The cells of a table in its order, splits apart; of another report in the order in which their first result came.

    Args:
        name: of the table.
        found: its results.
        compare: whether the paper's figures are of the same data and epochs.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in found:
        groups.setdefault((result.split, result.column, result.method), []).append(result)
    return [
        Cell(
            *key,
            trained=[r.value for r in group if r.value is not None and not r.is_collapsed],
            collapsed=[r.value for r in group if r.value is not None and r.is_collapsed],
            failed=[r.failed for r in group if r.failed is not None],
            paper=TABLES[name].published(*key) if compare and name in TABLES else None,
        )
        for key, group in sorted(groups.items(), key=lambda item: _places(item[0], name, found))
    ]


def _places(key: tuple[str, str, str], name: str, found: Sequence[Result]) -> list[int]:
    """What a cell is sorted by: the places of its split, column and method."""
    if name in TABLES:
        table = TABLES[name]
        known: Sequence[Sequence[str]] = (table.splits, table.shown(), (*table.rows(), *table.more))
    else:
        known = (list(dict.fromkeys(result.split for result in found)), (), ())
    return [names.index(part) if part in names else len(names) for part, names in zip(key, known, strict=True)]


def write(
    name: str,
    title: str,
    found: Sequence[Result],
    folder: Path,
    console: Console,
    compare: bool = True,
    draw: Callable[[Path], None] | None = None,
) -> list[Cell]:
    """Print a table and write ``<name>.md`` and ``<name>.png`` beside its results.

    Args:
        name: of the files.
        title: of the report.
        found: results of one table, data set and number of epochs.
        folder: for the files.
        console: to print on.
        compare: whether the paper's figures are of the same data and epochs.
        draw: the picture; None: the paper's figures beside ours.
    """
    first = found[0]
    runs = f"{first.data}, {first.epochs} epochs, {', '.join(sorted({r.device for r in found}))}"
    rows = cells(first.table, found, compare)
    commits = ", ".join(sorted({r.commit for r in found}))
    table = TABLES.get(first.table)
    caption = f"{title} ({runs})"
    if table and not table.paper:  # our own
        about = [table.note, OURS.removeprefix("ours: ")]
        sheet = Sheet(caption, OWN, [row.own() for row in rows], names=3)
    else:
        about = [f"{OURS} {PAPERS}"]
        sheet = Sheet(caption, HEADER, [row.text() for row in rows], names=3)
    notes = [f"{runs}; commit {commits}.", *about, *_logs(found)]
    sheets.write(
        folder / f"{name}.md", title, notes, [sheet], console, {f"{name}.png": draw or partial(_plot, rows, title)}
    )
    return rows


def _logs(found: Sequence[Result]) -> list[str]:
    """A paragraph on the runs that were not trained for the table."""
    runs: dict[str, set[tuple[str, str, int]]] = {}
    for r in found:
        if r.log:
            runs.setdefault(r.log, set()).add((r.column, r.method, r.seed))
    count, all_runs = sum(map(len, runs.values())), len({(r.column, r.method, r.seed) for r in found})
    named = "; ".join(
        f"{log}: {', '.join(f'{method} {column} seed {seed}' for column, method, seed in sorted(members))}"
        for log, members in sorted(runs.items())
    )
    told = f"{count} of the {all_runs} runs are this epoch of other tables' runs, read from their logs: {named}."
    return [told] if runs else []


def _plot(rows: Sequence[Cell], title: str, path: Path) -> None:
    from . import panels  # matplotlib is slow to import

    panels.plot(rows, title, path)
