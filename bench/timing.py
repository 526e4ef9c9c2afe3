"""Formulations timed side by side: they take turns, a block of calls each, and each has its median and quartiles.

A block is some calls of one formulation after one that does not count, so that it is timed with its own code and memory
in the caches, as a training loop has it; single calls in turn would time what the others evict. A call that lasts as
long as a block is one by itself: it outlasts what it finds in the caches. A call of one thread is timed in the
processor's time, to which other processes of a machine do not add; others by the wall clock.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

K = TypeVar("K")

BLOCK = 3e-3  #: seconds
ROUNDS = 15
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: quartiles over the blocks."""

    low: float
    median: float
    high: float


def clock(device: str, threads: int) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def interleaved(calls: Mapping[K, Callable[[], object]], now: Callable[[], float], seconds: float) -> dict[K, Timing]:
    """``ROUNDS`` rounds of blocks, or as many as fit into so many seconds, but ``LEAST_ROUNDS``."""
    for call in calls.values():  # the first one imports, allocates, compiles and starts threads
        call()
    began = time.perf_counter()
    sizes = {name: max(1, min(1000, int(BLOCK / max(_block(call, 1, now), 1e-6)))) for name, call in calls.items()}
    found: dict[K, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        if turn >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for name, call in calls.items():
            if sizes[name] > 1:
                call()
            found[name].append(_block(call, sizes[name], now))
    return {name: Timing(*statistics.quantiles(times, n=4, method="inclusive")) for name, times in found.items()}


def _block(call: Callable[[], object], count: int, now: Callable[[], float]) -> float:
    begin = now()
    for _ in range(count):
        call()
    return (now() - begin) / count
