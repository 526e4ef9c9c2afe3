"""Calls of every kind by the million: the process stays as it was, in memory, open files, threads and objects."""

import gc
import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import psutil
import torch

import discrete_ops as do
from discrete_ops import estimators

from .record import Line

SHORT = {"calls": 3_000}
LONG = {"calls": 1_000_000}

PAGE = """\
One process calls every estimator in turn, forward and backward, hard and soft, on rows of several lengths and dtypes,
with masks, many draws, ragged rows, tables, `top_k`, a compiled call, and every hundredth time with an argument that is
refused. After a tenth of the calls more to warm up, the medians of the first and of the last ten of a hundred looks are
compared. The pages of files, which the system takes back and reads again, are no memory of the process's own."""

SHAPES = ((1, 2), (32, 10), (7, 64), (16, 300), (3, 1, 1200))
ESTIMATORS = (
    estimators.StraightThrough(0.7),
    estimators.GumbelSoftmax(0.7),
    estimators.GumbelRao(0.7, 5),
    estimators.GumbelRao(0.7, 8, draws="stratified"),
    estimators.GST(0.7),
    estimators.GST(0.7, gap="pi"),
    estimators.ReinMax(1.1),
    estimators.ReinMaxArgmax(1.1),
    estimators.ReinMaxRao(0.7, 5),
    estimators.ReinMaxCV(0.7, 1.5, 5),
    estimators.ReinMaxRK2(),
    estimators.Mix(),
    estimators.MVE(),
)
#: At the process, evenly over the calls.
LOOKS = 100
MEMORY, OBJECTS = "megabytes of its own", "objects since"
Call = Callable[[int], Any]


def differentiated(call: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> Call:
    """The call of its leaves with a seed, and its backward pass."""

    def once(seed: int) -> None:
        sample = call(*leaves, seed=seed)
        torch.autograd.grad(sample, leaves, torch.ones(()).to(sample.dtype).expand_as(sample))

    return once


def good_calls() -> list[Call]:
    torch.manual_seed(0)
    calls = list[Call]()
    for (number, shape), estimator in product(enumerate(SHAPES), ESTIMATORS):
        dtype = (torch.float32, torch.bfloat16, torch.float64)[(number + len(calls)) % 3]
        calls.append(differentiated(estimator, torch.randn(shape, dtype=dtype, requires_grad=True)))
    logits, table = torch.randn(32, 10, requires_grad=True), torch.randn(10, 4, requires_grad=True)
    hidden, weight = torch.randn(32, 6, requires_grad=True), torch.randn(10, 6, requires_grad=True)
    mask, offsets = torch.rand(32, 10) > 0.3, torch.tensor([0, 3, 11, 20])
    options: list[dict[str, Any]] = [{"mask": mask}, {"num_draws": 4}, {"dim": 0}, {"backend": "reference"}]
    calls += [differentiated(partial(do.gst, **each), logits) for each in options]
    calls += [
        differentiated(partial(do.gumbel_rao, num_samples=3, hard=False), logits),
        differentiated(partial(do.reinmax, offsets=offsets), torch.randn(20, requires_grad=True)),
        differentiated(partial(do.embedding, estimator="gst"), logits, table),
        differentiated(lambda x, w, v, seed: do.linear_embedding(x, w, v, seed=seed), hidden, weight, table),
        differentiated(partial(do.top_k, k=3), logits),
        differentiated(partial(do.bernoulli, estimator="reinmax"), logits),
        lambda seed: do.straight_through(logits.detach()),  # a seed of torch's generator
    ]
    return calls


def refused_calls() -> list[Call]:
    """Each raises ValueError or TypeError."""
    logits = torch.randn(32, 10, requires_grad=True)
    return [
        lambda seed: do.gst(logits, tau=-1.0, seed=seed),
        lambda seed: do.gumbel_rao(logits, num_samples=0, seed=seed),
        lambda seed: do.reinmax(logits, dim=5, seed=seed),
        lambda seed: do.reinmax(logits, backend=f"none {seed}"),
        lambda seed: do.embedding(logits, torch.ones(9, 4), seed=seed),
        lambda seed: do.straight_through(logits.long(), seed=seed),
        lambda seed: do.mve(logits, mask=torch.ones(3, dtype=torch.bool), seed=seed),
    ]


def compiled_call() -> Call:
    logits = torch.randn(32, 10, requires_grad=True)
    call = torch.compile(lambda x: do.gst(x, tau=0.7), backend="aot_eager")
    return lambda seed: call(logits).sum().backward(inputs=[logits])


def look() -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    memory = process.memory_info()
    return {
        MEMORY: (memory.rss - getattr(memory, "shared", 0)) / 2**20,  # without files' pages, which come and go
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        OBJECTS: len(gc.get_objects()),
    }


class Caller:
    """Call after call, by number; every hundredth is refused, every hundredth is compiled."""

    def __init__(self) -> None:
        self.good, self.refused, self.compiled = good_calls(), refused_calls(), compiled_call()
        self.number, self.faults = 0, list[str]()

    def go_on(self, calls: int) -> None:
        for number in range(self.number, self.number + calls):
            if number % 100 == 99:
                try:
                    self.refused[number // 100 % len(self.refused)](number)
                    self.faults.append(f"call {number} was not refused")
                except (ValueError, TypeError):
                    pass
            elif number % 100 == 50:
                self.compiled(number)
            else:
                self.good[number % len(self.good)](number)
        self.number += calls


def run(calls: int) -> list[Line]:
    caller, looks = Caller(), []
    caller.go_on(calls // 10)
    gc.collect()
    gc.freeze()  # what there is so far takes no time to look through
    try:
        for number in range(1, LOOKS + 1):
            caller.go_on(calls // LOOKS)
            looks.append(look())
            if number % (LOOKS // 10) == 0:
                print(f"long_run: {caller.number} calls, {looks[-1]}", flush=True)
    finally:
        gc.unfreeze()
    lines, ends = [], (looks[: LOOKS // 10], looks[-LOOKS // 10 :])
    for name in looks[0]:
        first, last = (statistics.median(each[name] for each in part) for part in ends)
        asked, most = "as at first", 0.0
        if name == MEMORY:
            asked, most = "within 1 %", 0.01 * first
        elif name == OBJECTS:  # another thread of torch's has one or two at times
            asked, most = "less than one more in a thousand calls", calls / 1000
        found = f"{first:.6g} at first, {last:.6g} at the end"
        lines.append(Line(f"calls of every kind: {name}", calls, "calls", asked, found, abs(last - first) <= most))
    refused = caller.number // 100
    lines.append(Line.of("calls with a bad argument", refused, "calls", "ValueError or TypeError", caller.faults))
    return lines
