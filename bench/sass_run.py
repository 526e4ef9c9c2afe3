"""The CUDA kernels as they are shipped, without a GPU: the built library's machine code, executed.

python -m bench.sass_run [--markdown FILE]

Each case is a launch as it is planned for a whole H200; its first block is executed instruction by instruction
(``sass_machine.py``), and its rows are compared with the reference. What is counted is instructions issued a warp, the
mean over the block's warps: no time. Unlike ``bench.sass``, it has what kernels do to find out the launch.
"""

import argparse
import functools
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
MULTIPROCESSORS, L2_BYTES, SHARED_BYTES = 132, 50 * 2**20, 228 * 2**10
ELEMENTS, VALUED_ROWS = 2**26, 256  #: enough to fill it; rows with values, which are more than a block's


class Case(NamedTuple):
    what: str
    estimator: str | None  #: that pulls back; None: forward
    columns: int
    asked: int | None = None
    draws: tuple[int, ...] = (1,)  #: of several launches; what is counted is a draw
    rows: int = 2**20  #: at most


CASES = [
    Case("Gumbel-Rao, a draw", "gumbel_rao", 10, 500, draws=(4, 8)),
    Case("Gumbel-softmax pull-back", "gumbel_rao", 64, 1100),
    Case("straight-through pull-back", "straight_through", 64),
    Case("GST pull-back", "gst", 64),
    Case("ReinMax pull-back", "reinmax", 64),
    Case("straight-through pull-back", "straight_through", 1024),
    Case("straight-through pull-back", "straight_through", 10),
    Case("Gumbel-softmax pull-back", "gumbel_rao", 1024),
    Case("Gumbel-softmax pull-back", "gumbel_rao", 7),
    Case("Gumbel-Rao, 32 draws, 3000 rows", "gumbel_rao", 10, draws=(32,), rows=3000),
    Case("forward", None, 10),
    Case("forward", None, 64, 480),
    Case("forward", None, 1024, 650),
    # As many rows as multiprocessors: a block has one.
    Case("forward", None, 8192, rows=MULTIPROCESSORS),
    Case("forward", None, 12000, rows=MULTIPROCESSORS),
    Case("straight-through pull-back", "straight_through", 8192, rows=MULTIPROCESSORS),
    Case("straight-through pull-back", "straight_through", 12000, rows=MULTIPROCESSORS),
    Case("Gumbel-Rao, a draw", "gumbel_rao", 4096, draws=(2, 4), rows=MULTIPROCESSORS),
    Case("Gumbel-Rao, a draw", "gumbel_rao", 8192, draws=(2, 4), rows=MULTIPROCESSORS),
]


class Count(NamedTuple):
    issued: float  #: instructions a warp, their mean
    error: float  #: the largest, of a gradient; or of an index


def counted(machine: MachineCode, case: Case) -> Count:
    rows = min(case.rows, ELEMENTS // case.columns)
    logits, v = torch.zeros(2, rows, case.columns)  # memory that nothing touches takes none
    values = torch.randn(2, VALUED_ROWS, case.columns, generator=torch.Generator().manual_seed(0))
    first, seed = slice(VALUED_ROWS), torch.tensor([1])
    logits[first], v[first] = values[:, :rows]
    index = torch.zeros(rows, dtype=torch.int64)
    index[first] = reference.sample(logits[first], seed)[1]
    counts = []
    for draws in case.draws:
        if case.estimator is None:
            got, want = machine.sample(logits, seed, reference.AT_ONE)[1], index
        else:
            call = (seed, (1.0, COEFFICIENT.get(case.estimator, 0.0), 1.0), case.estimator, draws)
            got = machine.surrogate_vjp(v, logits, index, *call)
            want = reference.surrogate_vjp(v[first], logits[first], index[first], *call)
        served = -(-rows // machine.last_launch().blocks)
        error = float((got[:served].double() - want[:served]).abs().max())
        counts.append(Count(sum(machine.issued) / len(machine.issued), error))
    if len(counts) == 1:
        return counts[0]
    a_draw = (counts[-1].issued - counts[0].issued) / (case.draws[-1] - case.draws[0])
    return Count(a_draw, max(count.error for count in counts))


def table() -> str:
    machine = MachineCode(blocks=[0])
    machine.machine(MULTIPROCESSORS, L2_BYTES, SHARED_BYTES)
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
