"""TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path

from . import files
from .errors import RunError


class Events:
    """Event files in ``out``, without what an interrupted run wrote after ``epoch``.

    Raises:
        RunError: tensorboard is not installed; by any method, the files cannot be written.
    """

    def __init__(self, out: Path, epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RunError("tensorboard: is not installed; pip install tensorboard") from error
        self.out = out
        with files.naming(out):
            self._writer = SummaryWriter(str(out), purge_step=epoch + 1)

    def add(self, figures: Mapping[str, float], epoch: int) -> None:
        with files.naming(self.out):
            for name, value in figures.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def close(self) -> None:
        with files.naming(self.out):
            self._writer.close()
