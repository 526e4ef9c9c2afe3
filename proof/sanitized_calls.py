"""Eight threads at once call every estimator, forward and backward, of the library that a sanitizer is in.

proof.sanitizers starts it. Prints how many calls there were, of which all came out as alone.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from discrete_ops import compiled

from . import allocation_calls

THREADS = 8


def main(torch_threads: int, repeats: int) -> int:
    """Shapes that torch's threads share, too, where it has several."""
    torch.set_num_threads(torch_threads)
    torch.manual_seed(0)
    calls = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for name, run in allocation_calls.cases("calls", [*allocation_calls.CALLS]):
            right = run()
            for came in pool.map(lambda _, run=run: run(), range(THREADS * repeats)):
                assert all(map(torch.equal, came, right)), name
                calls += 1
    return calls


if __name__ == "__main__":
    assert "sanitize" in str(compiled.CPU_LIBRARY), compiled.CPU_LIBRARY
    print(main(*map(int, sys.argv[1:])), "calls")
