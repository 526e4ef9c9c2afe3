"""``table gst-6``: test accuracy on ListOps by estimator and temperature, the paper's beside ours.

Source: Fan et al., ICML 2022, Table 6.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.common.errors import RunError
from tasks.common.files import write_text


@dataclass(frozen=True)
class Row:
    """An estimator of the table with the accuracy printed for each temperature."""

    title: str
    estimator: str
    paper: dict[float, float]


GST_6 = (
    Row("GST-1.0", "gst", {1.0: 0.662, 0.1: 0.659, 0.01: 0.651}),
    Row("STGS", "gumbel_softmax", {1.0: 0.664, 0.1: 0.645, 0.01: 0.637}),
    Row("GR-MC100", "gumbel_rao", {1.0: 0.661, 0.1: 0.479, 0.01: 0.662}),
)
TABLES = {"gst-6": GST_6}


def cells(name: str, out: Path) -> Iterator[tuple[str, float, Path]]:
    """Estimator, temperature and directory of each run of a table."""
    for row in TABLES[name]:
        for tau in row.paper:
            yield row.estimator, tau, _cell(out, row, tau)


def show(name: str, out: Path, console: Console) -> None:
    """Print the table from the runs in ``out``, and write it to ``table.md`` there.

    Raises:
        RunError: a run's result is damaged; it is named.
    """
    rows = TABLES[name]
    table = Table(title=f"{name}: test accuracy, paper / ours (parse F1)")
    table.add_column("estimator")
    for tau in rows[0].paper:
        table.add_column(f"tau = {tau:g}", justify="right")
    lines = [
        [row.title, *(f"{paper:.3f} / {_ours(_cell(out, row, tau))}" for tau, paper in row.paper.items())]
        for row in rows
    ]
    for line in lines:
        table.add_row(*line)
    console.print(table)
    header = ["estimator", *(f"tau = {tau:g}" for tau in rows[0].paper)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *lines))
    if out.is_dir():
        write_text(out / "table.md", text)


def _cell(out: Path, row: Row, tau: float) -> Path:
    return out / f"{row.estimator}-{tau:g}"


def _ours(directory: Path) -> str:
    path = directory / "result.json"
    if not path.exists():
        return "not run"
    try:
        figures = json.loads(path.read_text())
        return f"{figures['test_accuracy']:.3f} ({figures['test_f1']:.2f})"
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a run's result ({type(error).__name__}: {error})") from error
