"""A sample's product with a table, forward + backward: ours, our sample times the table, and plain PyTorch.

python -m bench.embedding

Medians of turns in CPU time, one thread, float32. Memory is what torch's profiler counts at its peak, over inputs,
result and gradients.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import gumbel_softmax

import discrete_ops as do

from .memory import peak

SHAPES = ((4096, 8192, 64), (65536, 512, 64), (1024, 64, 64), (64, 320, 32))
FORMULATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ours": lambda logits, weight: do.embedding(logits, weight, "gumbel_softmax"),
    "ours, product": lambda logits, weight: do.gumbel_softmax(logits, hard=True) @ weight,
    "plain": lambda logits, weight: gumbel_softmax(logits, hard=True) @ weight,
}


def setup(formulation: Callable[[Tensor, Tensor], Tensor], rows: int, columns: int, width: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    logits, weight, v = (
        torch.randn(shape, generator=generator) for shape in ((rows, columns), (columns, width), (rows, width))
    )
    leaves = logits.requires_grad_(), weight.requires_grad_()

    return lambda: torch.autograd.grad(formulation(*leaves), leaves, v)


def seconds(rows: int, columns: int, width: int) -> dict[str, float]:
    runs = {name: setup(formulation, rows, columns, width) for name, formulation in FORMULATIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(max(8, min(500, 2**28 // (rows * columns) // 8))):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            if turn:  # the first call imports and allocates
                times[name].append(time.process_time() - begin)
    return {name: median(each) for name, each in times.items()}


def extra_bytes(formulation: Callable[[Tensor, Tensor], Tensor], rows: int, columns: int, width: int) -> int:
    held = 4 * (rows * columns + columns * width + rows * width)  # the gradients, and the result
    return peak(setup(formulation, rows, columns, width)) - held


def main() -> None:
    torch.set_num_threads(1)
    table = Table(title=f"{', '.join(FORMULATIONS)}: forward + backward")
    for column in (
        "rows",
        "categories",
        "width",
        *(f"{name}, ms" for name in FORMULATIONS),
        *(f"{name}, MiB" for name in FORMULATIONS),
    ):
        table.add_column(column, justify="right")
    for shape in SHAPES:
        times = seconds(*shape)
        sizes = [extra_bytes(formulation, *shape) for formulation in FORMULATIONS.values()]
        cells = [f"{1000 * x:.3g}" for x in times.values()] + [f"{x / 2**20:.1f}" for x in sizes]
        table.add_row(*map(str, shape), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
