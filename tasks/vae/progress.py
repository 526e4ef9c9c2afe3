"""What a run shows while it works: a bar with the time left on a terminal, one line an epoch elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .ensemble import Record
from .train import Steps

SPLITS = ("train", "test")


def bar(console: Console) -> Progress:
    """A progress bar that is silent where ``console`` is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, *times, console=console, disable=not console.is_terminal)


class RunProgress:
    """The two callbacks of :func:`tasks.vae.train.fit`, shown on ``console``."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self.progress = bar(console)
        self.task = self.progress.add_task("steps", total=None)

    def __enter__(self) -> "RunProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_step(self, steps: Steps) -> None:
        self.progress.update(self.task, completed=steps.done, total=steps.total)

    def on_epoch(self, records: list[Record]) -> None:
        losses = (f"{name} " + " ".join(f"{record[f'{name}_loss']:.3f}" for record in records) for name in SPLITS)
        text = f"epoch {records[0]['epoch']}/{self.epochs}: {', '.join(losses)}"
        if self.console.is_terminal:
            self.progress.update(self.task, description=text if len(records) == 1 else f"{len(records)} runs")
        else:
            self.console.print(f"{text} ({records[0]['seconds']:.1f} s)", highlight=False, soft_wrap=True)
