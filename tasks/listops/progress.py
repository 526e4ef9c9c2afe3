"""The progress of a parser's run: a bar over an epoch's steps on a terminal, and one line an epoch."""

from rich.console import Console

from tasks.common.progress import RunBar

from .train import Record, Steps


class RunProgress(RunBar):
    """The two callbacks of :func:`tasks.listops.train.fit`, shown on ``console``."""

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(console, name)
        self.name = name

    def on_start(self, text: str) -> None:
        self.say(f"{self.name}: {text}")

    def on_step(self, steps: Steps) -> None:
        if steps.done == 0:
            self.progress.reset(self.task, total=steps.total, description=f"{self.name}, epoch {steps.epoch}")
        self.progress.update(self.task, completed=steps.done)

    def on_epoch(self, record: Record) -> None:
        self.say(
            f"{self.name}, epoch {record['epoch']}: train loss {record['train_loss']:.4f}, accuracy "
            f"{record['train_accuracy']:.4f}; valid accuracy {record['valid_accuracy']:.4f}, parse F1 "
            f"{record['valid_f1']:.3f} (random {record['valid_f1_random']:.3f}, left {record['valid_f1_left']:.3f}, "
            f"right {record['valid_f1_right']:.3f}), depth {record['valid_depth']:.2f} ({record['seconds']:.0f} s)"
        )
