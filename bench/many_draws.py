"""R samples of each row: ``num_draws=R``, R calls, and one call on R copies of the logits; forward + backward, float32.

python -m bench.many_draws            # the table of bench/results/many_draws.md
"""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import torch

import discrete_ops as do

DRAWS, ROWS, COLUMNS = 16, 3000, 64
ESTIMATORS = (
    "straight_through",
    "gst",
    "reinmax",
    "mix",
    "reinmax(tau=0.7)",
    "gst(gap='pi')",
    "mve",
    "gumbel_softmax",
    "gumbel_rao(num_samples=10)",
)
ROUNDS = 25


def ways(name: str) -> dict[str, Callable[[], None]]:
    """What is compared: the same samples and the same gradient, in ``logits.grad``."""
    estimator = do.estimator(name)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, COLUMNS, generator=generator).requires_grad_()
    v = torch.randn(DRAWS, ROWS, COLUMNS, generator=generator)

    def calls() -> None:
        logits.grad = None
        for of_draw in v:
            estimator(logits).backward(of_draw)

    def copies() -> None:
        logits.grad = None
        estimator(logits.expand(DRAWS, ROWS, COLUMNS)).backward(v)

    def draws() -> None:
        logits.grad = None
        estimator(logits, num_draws=DRAWS).backward(v)

    return {"calls": calls, "copies": copies, "num_draws": draws}


def medians(name: str) -> dict[str, float]:
    """Milliseconds of the thread's own time, which others on the machine touch least; interleaved."""
    runs = ways(name)
    times: dict[str, list[float]] = {}
    for number in range(ROUNDS + 3):
        for way, run in runs.items():
            begin = time.thread_time()
            run()
            if number >= 3:  # the first ones allocate
                times.setdefault(way, []).append(1e3 * (time.thread_time() - begin))
    return {way: statistics.median(each) for way, each in times.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()
    what = f"{DRAWS} draws of {ROWS}x{COLUMNS}; medians, ms of CPU time"
    print(f"{platform.machine()}, one thread; commit {commit}; {what}\n")
    print(f"| estimator | {DRAWS} calls | on {DRAWS} copies | num_draws={DRAWS} | num_draws / calls |")
    print("|---|---:|---:|---:|---:|")
    for name in ESTIMATORS:
        ms = medians(name)
        share = ms["num_draws"] / ms["calls"]
        print(f"| {name} | {ms['calls']:.2f} | {ms['copies']:.2f} | {ms['num_draws']:.2f} | {share:.2f} |", flush=True)
