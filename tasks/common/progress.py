"""What a run shows while it works: a bar with the time left on a terminal, lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self


def bar(console: Console) -> Progress:
    """A progress bar that is silent where ``console`` is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, *times, console=console, disable=not console.is_terminal)


class RunBar:
    """One bar on ``console`` for as long as a run lasts; each task adds the callbacks of its ``train.fit``."""

    def __init__(self, console: Console, description: str) -> None:
        self.console = console
        self.progress = bar(console)
        self.task = self.progress.add_task(description, total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_start(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        """One line, as it is."""
        self.console.print(text, highlight=False, soft_wrap=True)
