"""The progress of a VAE's run: a bar on a terminal, one line an epoch elsewhere."""

from rich.console import Console

from tasks.common.progress import RunBar

from .ensemble import Record
from .train import Steps

SPLITS = ("train", "test")


class RunProgress(RunBar):
    """The two callbacks of :func:`tasks.vae.train.fit`, shown on ``console``."""

    def __init__(self, console: Console, epochs: int) -> None:
        super().__init__(console, "steps")
        self.epochs = epochs

    def on_step(self, steps: Steps) -> None:
        self.progress.update(self.task, completed=steps.done, total=steps.total)

    def on_epoch(self, records: list[Record]) -> None:
        losses = (f"{name} " + " ".join(f"{record[f'{name}_loss']:.3f}" for record in records) for name in SPLITS)
        text = f"epoch {records[0]['epoch']}/{self.epochs}: {', '.join(losses)}"
        if self.console.is_terminal:
            self.progress.update(self.task, description=text if len(records) == 1 else f"{len(records)} runs")
        else:
            self.say(f"{text} ({records[0]['seconds']:.1f} s)")
