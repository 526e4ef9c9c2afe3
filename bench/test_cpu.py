"""CPU speed, forward + backward, float32: ours against the plain formulation, side by side in one run.

python -m pytest bench --benchmark-json=out.json && python -m bench.report out.json
"""

import pytest
import torch

from .formulations import PAIRS, setup

CASES = [
    *[(name, 3000, 10, 1) for name in PAIRS],
    ("gumbel_softmax", 64, 8192, 1),
    ("gumbel_softmax", 4, 10, 1),
    *[(name, 4096, 64, threads) for name in ("gumbel_softmax", "gumbel_rao") for threads in (1, 2)],
    *[(name, 3000, 10, 2) for name in ("straight_through", "gumbel_rao")],
    *[(name, 30000, 10, threads) for name in ("straight_through", "reinmax") for threads in (1, 2)],
]


@pytest.mark.parametrize("which", ["ours", "plain"])
@pytest.mark.parametrize(("name", "rows", "columns", "threads"), CASES)
def test_forward_and_backward(benchmark, name: str, rows: int, columns: int, threads: int, which: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    benchmark.group = f"{name} {rows}x{columns}, threads: {threads}"
    benchmark.extra_info.update(name=name, rows=rows, columns=columns, threads=threads, which=which)
    run = setup(PAIRS[name][which == "plain"], rows, columns)
    try:
        for _ in range(3):  # the first calls import, allocate and start threads
            run()
        benchmark(run)
    finally:
        torch.set_num_threads(before)
