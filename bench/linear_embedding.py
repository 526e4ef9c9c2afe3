"""A sampled row of a table, of logits that are a product: ``linear_embedding`` against the formulations that hold the
logits, forward + backward, float32, one thread. Each case in a fresh process.

python -m bench.linear_embedding
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gumbel_softmax, linear

from . import resident

CASES = list(itertools.product((8192, 32768, 131072), (64, 256), (256, 1024)))
REPEATS = 3


def formulations() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    import discrete_ops as do

    return {
        "linear_embedding": lambda x, proj, weight: do.linear_embedding(x, proj, weight, "gumbel_softmax"),
        "ours, whole logits": lambda x, proj, weight: do.gumbel_softmax(linear(x, proj), hard=True) @ weight,
        "torch": lambda x, proj, weight: gumbel_softmax(linear(x, proj), hard=True) @ weight,
    }


def seconds(which: str, columns: int, features: int, rows: int) -> float:
    """A call, in the processor's time, which others share."""
    return _output(which, columns, features, rows)[0]


def peak(which: str, columns: int, features: int, rows: int) -> float:
    """Resident memory in MiB. Freed memory is returned at once, at some cost of time."""
    return _output(which, columns, features, rows, 1, MALLOC_MMAP_THRESHOLD_=str(2**20))[1]


def _output(which: str, *numbers: int, **environment: str) -> list[float]:
    """What a process prints that does nothing else."""
    command = [sys.executable, "-m", "bench.linear_embedding", which, *map(str, numbers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return [float(word) for word in done.stdout.split()]


def child(which: str, columns: int, features: int, rows: int, repeats: int = REPEATS) -> None:
    torch.set_num_threads(1)
    call = formulations().get(which)
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(length, features, generator=generator) for length in (rows, columns, columns)]
    leaves = [leaf.div_(features**0.25).requires_grad_() for leaf in leaves]  # logits of standard deviation 1
    v, times = torch.ones(rows, features), []
    for _ in range(1 + repeats):
        begin = time.process_time()
        if call is None:  # what any of them has: result and gradients
            _held = [torch.ones_like(tensor) for tensor in (v, *leaves)]
        else:
            out = call(*leaves)
            _held = [out, *torch.autograd.grad(out, leaves, v)]
            del out
        times.append(time.process_time() - begin)
        del _held
    print(statistics.median(times[1:]), resident.peak() / 2**20)


def main() -> None:
    names = [*formulations()]
    print("| N | H = D | rows |" + "".join(f" {name}: s | MiB |" for name in names))
    print("|---:|---:|---:|" + "---:|---:|" * len(names))
    for case in CASES:
        floor = peak("nothing", *case)
        cells = "".join(f" {seconds(name, *case):.3f} | {peak(name, *case) - floor:.0f} |" for name in names)
        print("| {} | {} | {} |".format(*case) + cells, flush=True)


if __name__ == "__main__":
    child(sys.argv[1], *map(int, sys.argv[2:])) if len(sys.argv) > 1 else main()
