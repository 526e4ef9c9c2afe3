"""The CUDA kernels as they are shipped, without a GPU: the built library's machine code, executed.

python -m bench.sass_run [--markdown FILE]
"""

import argparse
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from discrete_ops import reference

from . import sass_code
from .sass import LIBRARY
from .sass_machine import Launch, Machine, run_together

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # no package: "tests" is a name that others take, too

from cuda_emulator import Emulator, built
from draws import COEFFICIENT

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
        together = self.last_launch().split > 1
        numbers = range(blocks) if together or self.blocks is None else self.blocks
        machines = [Machine(launch, block) for block in numbers]
        if together:
            run_together(machines)
        else:
            for machine in machines:
                machine.run()
        self.issued = [count for machine in machines for count in machine.issued.tolist()]
        return result


#: The device that launches are planned for: an H200's.
MULTIPROCESSORS, L2_BYTES = 132, 50 * 2**20
ROWS = 2**20  #: enough to fill it
ESTIMATORS = {
    "straight-through": "straight_through",
    "Gumbel-softmax": "gumbel_rao",
    "Gumbel-Rao": "gumbel_rao",
    "GST": "gst",
    "ReinMax": "reinmax",
}


class Case(NamedTuple):
    """``draws`` are the numbers of draws of two launches whose difference is a draw's; or of one launch."""

    what: str
    columns: int
    asked: int | None = None
    draws: tuple[int, ...] = (1,)
    rows: int = ROWS


CASES = [
    Case("Gumbel-Rao, a draw", 10, 500, draws=(4, 8)),
    Case("Gumbel-softmax pull-back", 64, 1100),
    Case("straight-through pull-back", 64),
    Case("GST pull-back", 64),
    Case("ReinMax pull-back", 64),
    Case("straight-through pull-back", 1024),
    Case("straight-through pull-back", 10),
    Case("Gumbel-softmax pull-back", 1024),
    Case("Gumbel-softmax pull-back", 7),
    Case("Gumbel-Rao, 32 draws, 3000 rows", 10, draws=(32,), rows=3000),
    Case("forward", 10),
    Case("forward", 64, 480),
    Case("forward", 1024, 650),
]


class Count(NamedTuple):
    issued: float  #: instructions a warp, their mean
    error: float  #: largest of a gradient from the reference's


def counted(machine: MachineCode, case: Case) -> Count:
    """Of the launch's first block, whose rows are the only ones that have values, compared with the reference."""
    machine.machine(MULTIPROCESSORS, L2_BYTES)
    shape = min(case.rows, ROWS * 64 // case.columns), case.columns
    logits, v = torch.zeros(2, *shape)  # memory that nothing touches costs nothing
    seed = torch.tensor([1])
    some, error, issued = 256, 0.0, []
    logits[:some], v[:some] = torch.randn(2, some, case.columns, generator=torch.Generator().manual_seed(0))
    index = torch.zeros(len(logits), dtype=torch.int64)
    index[:some] = reference.sample(logits[:some], seed)[1]
    for draws in case.draws:
        if case.what == "forward":
            got = machine.sample(logits, seed, reference.AT_ONE)[1]
            want = index
        else:
            name = ESTIMATORS[re.split(" pull-back|,", case.what)[0]]
            call = (seed, (1.0, COEFFICIENT.get(name, 0.0), 1.0), name, draws)
            got = machine.surrogate_vjp(v, logits, index, *call)
            want = reference.surrogate_vjp(v[:some], logits[:some], index[:some], *call)
        launch = machine.last_launch()
        rows = launch.threads // (launch.team * launch.draw_groups)
        error = max(error, float((got[:rows].double() - want[:rows]).abs().max()))
        issued.append(sum(machine.issued) / len(machine.issued))
    return Count((issued[-1] - issued[0]) / (case.draws[-1] - case.draws[0]) if len(issued) > 1 else issued[0], error)


def table() -> str:
    machine = MachineCode(blocks=[0])
    lines = ["| what | N | instructions a warp | asked | error |", "|---|---:|---:|---:|---:|"]
    for case in CASES:
        count = counted(machine, case)
        asked = f"<= {case.asked}" if case.asked else ""
        lines.append(f"| {case.what} | {case.columns} | {count.issued:.0f} | {asked} | {count.error:.0e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    options = parser.parse_args()
    text = table() + "\n"
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
