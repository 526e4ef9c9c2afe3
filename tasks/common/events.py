"""TensorBoard's event files."""

from pathlib import Path
from typing import Any

from .errors import RunError


def writer(out: Path, epoch: int) -> Any:
    """A ``SummaryWriter`` in ``out`` that drops what an interrupted run wrote after ``epoch``.

    Raises:
        RunError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError("tensorboard: is not installed; pip install tensorboard") from error
    return SummaryWriter(str(out), purge_step=epoch + 1)
