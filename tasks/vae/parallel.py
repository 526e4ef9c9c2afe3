"""One model over several processes: each takes its part of every batch, and gradients are averaged over them.

Hugging Face Accelerate does it: it reads what ``torchrun`` sets, picks NCCL or gloo, and leaves the training loop
alone, where Lightning Fabric would want to launch the processes and to own the backward pass.
"""

from typing import Any

import torch
from torch import Tensor

from tasks.common.errors import RunError


class Processes:
    """The interface; also a group of one."""

    rank = 0
    count = 1

    def check(self, batch_size: int) -> None:
        """Raises RunError on a batch that cannot be shared equally."""

    def wrap(self, model: Any) -> torch.nn.Module:
        """The model to call: its backward pass averages the gradients over the processes."""
        return model

    def share(self, index: Tensor) -> Tensor:
        """This process's images of a batch, ``(M, B)`` -> ``(M, B / count)``."""
        return index

    def own(self, seed: Tensor) -> Tensor:
        """Noise seeds of its own for each process."""
        return seed

    def sum(self, value: Tensor) -> Tensor:
        """Over the processes."""
        return value

    def wait(self) -> None:
        """For the others."""

    def leave(self) -> None:
        """The group. A process that ends inside it may be aborted by its own threads."""


Alone = Processes


class Accelerated(Processes):
    """The processes that ``torchrun`` started, or one if it did not.

    Joined before anything is put on ``device``: each process gets a GPU of its own.
    """

    def __init__(self, device: str) -> None:
        if ":" in device:
            raise RunError(f"device: got {device!r}, allowed with --distributed: a kind of device, without a number")
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise RunError("distributed: accelerate is not installed; pip install accelerate") from error
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes

    def check(self, batch_size: int) -> None:
        if batch_size % self.count:
            raise RunError(f"batch_size: got {batch_size}, allowed with {self.count} processes: a multiple of that")

    def wrap(self, model: Any) -> torch.nn.Module:
        return self.accelerator.prepare_model(model)

    def share(self, index: Tensor) -> Tensor:
        # A last batch that does not divide leaves out what remains: gradients are averaged over equal parts.
        part = index.shape[1] // self.count
        return index[:, self.rank * part : (self.rank + 1) * part]

    def own(self, seed: Tensor) -> Tensor:
        return (seed + self.rank) % (2**63 - 1)

    def sum(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, "sum")

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        self.accelerator.end_training()
