"""Tables that are not of trained runs: on the console and as Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tasks.common import files, papers


class Sheet(NamedTuple):
    """A table; its first column is of names, the others of figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(value: float | None) -> str:
    """Three figures that count; a dash for what is not there."""
    if value is None:
        return "-"
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"


def printed(figure: papers.Figure | None) -> str:
    """As the paper has it; a dash for what it does not have."""
    return "-" if figure is None else str(figure)


def write(
    path: Path | None,
    title: str,
    notes: Iterable[str],
    sheets: Sequence[Sheet],
    console: Console,
    picture: str | None = None,
) -> None:
    """Print tables and write them as Markdown.

    Args:
        path: of the file; None writes none.
        title: of the whole.
        notes: a paragraph each, above the tables.
        sheets: the tables.
        console: to print on.
        picture: file name of a picture to show below.
    """
    notes = list(notes)
    lines = [f"# {title}", ""]
    for note in notes:
        lines += [note, ""]
    for sheet in sheets:
        table = Table(title=sheet.title)
        for place, name in enumerate(sheet.header):
            table.add_column(name, justify="right" if place else "left", no_wrap=not place)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
        align = ["---", *["---:"] * (len(sheet.header) - 1)]
        lines += [f"## {sheet.title}", ""] if len(sheets) > 1 else []
        lines += ["| " + " | ".join(row) + " |" for row in (sheet.header, align, *sheet.rows)] + [""]
    for note in notes:
        console.print(note, highlight=False)
    if path is None:
        return
    lines += [f"![{path.stem}]({picture})"] if picture else []
    with files.locked(path.parent):
        files.write_text(path, "\n".join(lines).rstrip() + "\n")
