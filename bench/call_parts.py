"""Where the time of a call of straight-through goes on a CPU: forward + backward, float32, one thread.

python -m bench.call_parts [ROWSxCOLUMNS ...]

Each shape in a fresh process, first as it is there, then with memory that malloc keeps. Processor time, medians of
rounds in which all parts take turns.
"""

import ctypes
import json
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd.function import Function

import discrete_ops as do
from discrete_ops import compiled

from . import plain, timing
from .formulations import Formulation

SHAPES = ("4x10", "3000x10", "30000x10", "64x8192")
SECONDS = 5.0  #: that the parts take turns for
#: glibc takes larger blocks than the largest that was freed so far from the system each time, and gives back what is
#: free at its heap's end above twice that. This is about the largest that it counts.
KEPT_BYTES = 2**25 - 2**16


class Nothing(Function):
    """What PyTorch takes for any operator that is written in Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)


def setup(formulation: Formulation, rows: int, columns: int) -> Callable[[], None]:
    """A forward and a backward pass."""
    logits, v = torch.randn(2, rows, columns)
    logits.requires_grad_()

    def run() -> None:
        logits.grad = None
        formulation(logits).backward(v)

    return run


def processor_times(parts: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Microseconds a call."""
    found = timing.interleaved(parts, timing.clock("cpu", threads=1), SECONDS)
    return {name: 1e6 * each.median for name, each in found.items()}


def faults_per_call(run: Callable[[], Any], calls: int = 50) -> float:
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin) / calls


def exponentials(n: int) -> Callable[[], Any]:
    """The kernels' exp of n elements, in parts that stay in a near cache."""
    exp, size = ctypes.CDLL(str(compiled.CPU_LIBRARY)).discrete_ops_math, min(n, 15000)
    exp.argtypes = (ctypes.c_char, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    x, y = torch.randn(2, size)

    def run() -> None:
        for _ in range(n // size):
            exp(b"e", x.data_ptr(), y.data_ptr(), size)

    return run


def child(shape: str) -> None:
    torch.set_num_threads(1)
    rows, columns = map(int, shape.split("x"))
    call = setup(do.straight_through, rows, columns)
    found = processor_times({"the call in a fresh process": call})
    found["page faults of it, number"] = faults_per_call(call)
    torch.empty(KEPT_BYTES, dtype=torch.uint8)  # and freed
    found |= processor_times(
        {
            "the call with memory at hand": call,
            "of it: backward() of a view": setup(lambda x: x.view_as(x), rows, columns),
            "with a Function that does nothing": setup(Nothing.apply, rows, columns),
            "drawing a seed": lambda: torch.randint(2**63 - 1, (1,)),
            **{f"{name} operator, same memory": run for name, run in operators(rows, columns).items()},
            **{f"{name} operator, other memory": elsewhere(run) for name, run in operators(rows, columns).items()},
            **{f"{name} operator, on one row": run for name, run in operators(1, columns).items()},
            "exp of all elements, twice": exponentials(2 * rows * columns),
            "fast plain form": setup(plain.straight_through, rows, columns),
        }
    )
    print(json.dumps(found))


def operators(rows: int, columns: int) -> dict[str, Callable[[], Any]]:
    """The kernels' own, below autograd."""
    kernels, spec = torch.ops.discrete_ops_kernels, (None, 1.0, 0.0, do.reference.NUMBERS["straight_through"], 1, 0)
    logits, v = torch.randn(2, rows, columns)
    seed = torch.zeros(1, dtype=torch.int64)
    index = kernels.sample(logits, seed)[1]
    return {
        "forward": lambda: kernels.sample(logits, seed),
        "backward": lambda: kernels.surrogate_vjp(v, logits, index, seed, *spec),
    }


def elsewhere(run: Callable[[], Any], kept: int = 8) -> Callable[[], Any]:
    """With results that lie where the last few do not, as malloc places them in a call: in no near cache."""
    results: deque[Any] = deque(maxlen=kept)
    return lambda: results.append(run())


def main(shapes: list[str]) -> None:
    found = []
    for shape in shapes:
        command = [sys.executable, "-m", "bench.call_parts", "--child", shape]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    title = f"straight_through, forward + backward, us of processor time; {do.build_info()['instruction_set']}"
    table = Table("", *shapes, title=title)
    for part in found[0]:
        table.add_row(part, *(f"{each[part]:.1f}" for each in found))
    Console(width=120).print(table)


if __name__ == "__main__":
    child(sys.argv[2]) if sys.argv[1:2] == ["--child"] else main(sys.argv[1:] or [*SHAPES])
