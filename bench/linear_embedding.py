"""A sampled row of a table, of logits that are a product: ``linear_embedding`` against the formulations that hold the
logits, forward + backward, float32, one thread. Each case in a fresh process.

python -m bench.linear_embedding
"""

import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gumbel_softmax, linear

CASES = list(itertools.product((8192, 32768, 131072), (64, 256), (256, 1024)))
REPEATS = 3


def formulations() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    import discrete_ops as do

    return {
        "linear_embedding": lambda x, proj, weight: do.linear_embedding(x, proj, weight, "gumbel_softmax"),
        "ours, whole logits": lambda x, proj, weight: do.gumbel_softmax(linear(x, proj), hard=True) @ weight,
        "torch": lambda x, proj, weight: gumbel_softmax(linear(x, proj), hard=True) @ weight,
    }


def measured(which: str, columns: int, features: int, rows: int) -> tuple[float, float]:
    """Seconds a call, of the processor's time, which others share, and peak resident memory in MiB: each in a process
    that does nothing else."""
    command = [sys.executable, "-m", "bench.linear_embedding", which, *map(str, (columns, features, rows))]
    once = [*command, "1"]
    returned = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}  # freed memory is, at once, at some cost of time
    seconds, _ = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    _, peak = subprocess.run(once, check=True, capture_output=True, text=True, env=returned).stdout.split()
    return float(seconds), float(peak)


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(statistics.median(times[1:]), peak)


def main() -> None:
    names = [*formulations()]
    print("| N | H = D | rows |" + "".join(f" {name}: s | MiB |" for name in names))
    print("|---:|---:|---:|" + "---:|---:|" * len(names))
    for case in CASES:
        _, floor = measured("nothing", *case)
        found = [measured(name, *case) for name in names]
        cells = "".join(f" {seconds:.3f} | {peak - floor:.0f} |" for seconds, peak in found)
        print("| {} | {} | {} |".format(*case) + cells, flush=True)


if __name__ == "__main__":
    child(sys.argv[1], *map(int, sys.argv[2:])) if len(sys.argv) > 1 else main()
