"""What a run shows while it works: a bar with the time left on a terminal, one line an epoch elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .train import Record, Steps


class RunProgress:
    """The two callbacks of :func:`tasks.listops.train.fit`, shown on ``console``."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.progress = Progress(*columns, *times, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task(name, total=None)

    def __enter__(self) -> "RunProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_step(self, steps: Steps) -> None:
        if steps.done == 0:
            self.progress.reset(self.task, total=steps.total, description=f"{self.name}, epoch {steps.epoch}")
        self.progress.update(self.task, completed=steps.done)

    def on_epoch(self, record: Record) -> None:
        self.console.print(
            f"{self.name}, epoch {record['epoch']}: train loss {record['train_loss']:.4f}, accuracy "
            f"{record['train_accuracy']:.4f}; valid accuracy {record['valid_accuracy']:.4f}, parse F1 "
            f"{record['valid_f1']:.3f}, depth {record['valid_depth']:.2f} ({record['seconds']:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )
