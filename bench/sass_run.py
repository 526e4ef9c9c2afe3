"""The CUDA kernels as they are shipped, without a GPU: the built library's machine code, executed.

python -m bench.sass_run [--markdown FILE]
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import sass_code
from .sass import LIBRARY
from .sass_machine import Launch, Machine

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # no package: "tests" is a name that others take, too

from cuda_emulator import Emulator, built

kernel = functools.cache(sass_code.kernel)


class MachineCode(Emulator):
    """``reference.py``'s functions by the library's machine code: of all rows, or those that some ``blocks`` serve."""

    def __init__(self, blocks: list[int] | None = None) -> None:
        super().__init__(built())
        self.blocks = blocks
        self.issued: list[int] = []  #: by the warps of the last launch

    def sample(self, *call: Any) -> tuple[Tensor, Tensor]:
        return self.executed(super().sample, *call)

    def surrogate(self, *call: Any) -> Tensor:
        return self.executed(super().surrogate, *call)

    def surrogate_vjp(self, *call: Any) -> Tensor:
        return self.executed(super().surrogate_vjp, *call)

    def tau_derivative(self, *call: Any) -> Tensor:
        return self.executed(super().tau_derivative, *call)

    def executed(self, operator: Callable[..., Any], *call: Any) -> Any:
        result, planned = self.planned(operator, *call)
        tensors = [x for x in (*call, *(result if isinstance(result, tuple) else (result,))) if isinstance(x, Tensor)]
        memory = [(x.data_ptr(), x.nbytes()) for x in (tensor.untyped_storage() for tensor in tensors)]
        name, parameter, blocks, threads, shared_bytes, workspace = planned
        launch = Launch(kernel(LIBRARY, name), parameter, blocks, threads, shared_bytes, (*memory, workspace))
        self.issued = []
        for block in range(blocks) if self.blocks is None else self.blocks:
            machine = Machine(launch, block)
            machine.run()
            self.issued += machine.issued.tolist()
        return result
