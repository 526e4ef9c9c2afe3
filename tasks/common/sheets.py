"""Tables for people: on the console and as Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from . import files, papers


class Sheet(NamedTuple):
    """A table.

    Attributes:
        title: on the console; in Markdown where there are several.
        header: of its columns.
        rows: the cells as they are shown.
        names: how many columns, from the left, are words; the others are figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    def print(self, console: Console) -> None:
        table = Table(title=self.title)
        for place, name in enumerate(self.header):
            is_name = place < self.names
            table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> list[str]:
        """Its lines."""
        align = ["---" if place < self.names else "---:" for place in range(len(self.header))]
        return ["| " + " | ".join(row) + " |" for row in (self.header, align, *self.rows)]


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
    pictures: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Print tables and write them as Markdown, with pictures: what another process writes is of one piece, too.

    Args:
        path: of the file; None writes none.
        title: of the whole.
        notes: a paragraph each, above the tables in the file, below them on the console.
        sheets: the tables.
        console: to print on.
        pictures: file names of what to show below, and what draws each.
    """
    notes = list(notes)
    for sheet in sheets:
        sheet.print(console)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    if path is None:
        return
    parts = [[f"# {title}"], *([note] for note in notes)]
    for sheet in sheets:
        parts += [[f"## {sheet.title}"], sheet.markdown()] if len(sheets) > 1 else [sheet.markdown()]
    if pictures:
        parts.append([f"![{Path(picture).stem}]({picture})" for picture in pictures])
    with files.locked(path.parent):
        for name, draw in (pictures or {}).items():
            draw(path.with_name(name))
        files.write_text(path, "\n\n".join("\n".join(part) for part in parts) + "\n")
