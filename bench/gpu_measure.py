"""The benchmark stages of ``bench.gpu``, each a process of its own: figures go to a JSON file case by case.

python -m bench.gpu_measure {bandwidth,small,comparator,gumbel_rao} out.json [--backend cuda] [--device cuda]

Medians. ``--device cpu`` runs the same code on small sizes, to try it where there is no GPU; its figures mean nothing.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends

from .gpu_formulations import KERNELS, PAIRS, Formulation, gumbel_rao

LARGE = {
    "1Mx64": (2**20, 64),
    "64Kx1024": (2**16, 1024),
    "1Mx10": (2**20, 10),
    "8Kx12000": (2**13, 12000),  # rows in blocks' shared memory
    "4Kx32000": (2**12, 32000),
}
SMALL = (3000, 10)
DRAWS = 1000
GRAPH_CALLS = 20  #: in a CUDA graph; the replay of one call's takes as long as the launch of a graph


class Bench:
    """Where figures are taken and written to."""

    def __init__(self, device: str, backend: str, path: Path) -> None:
        self.device, self.backend, self.path, self.cases = device, backend, path, list[dict[str, Any]]()
        self.is_gpu = device != "cpu"

    def record(self, **case: Any) -> None:
        self.cases.append(case)
        unfinished = self.path.with_suffix(".new")
        unfinished.write_text(json.dumps(self.cases))
        os.replace(unfinished, self.path)
        print(" ".join(f"{key}={value}" for key, value in case.items()), flush=True)

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def rotating(self, calls: Sequence[Callable[[], object]], rounds: int = 7) -> float:
        """Seconds a call: batches of calls on different memory, so that the L2 cache holds nothing of the next."""
        times = []
        for call in calls:
            call()
        for _ in range(rounds if self.is_gpu else 1):
            self.synchronize()
            if self.is_gpu:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda._sleep(10**6)  # half a millisecond in which the host gets ahead: its launches are not timed
                start.record()
                for call in [*calls, *calls]:
                    call()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) / 1e3 / (2 * len(calls)))
            else:
                began = time.perf_counter()
                for call in calls:
                    call()
                times.append((time.perf_counter() - began) / len(calls))
        return statistics.median(times)

    def wall(self, call: Callable[[], object], calls: int, rounds: int = 9) -> float:
        """Seconds a call, by the host's clock, with the device's work behind it."""
        calls, rounds = (calls, rounds) if self.is_gpu else (1, 1)
        for _ in range(3):
            call()
        times = []
        for _ in range(rounds):
            self.synchronize()
            began = time.perf_counter()
            for _ in range(calls):
                call()
            self.synchronize()
            times.append((time.perf_counter() - began) / calls)
        return statistics.median(times)

    def replay(self, call: Callable[[], object]) -> float:
        """Seconds a call in a CUDA graph of many."""
        if not self.is_gpu:
            return self.wall(call, 1)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_CALLS):
                call()
        return self.wall(graph.replay, 10) / GRAPH_CALLS

    def inputs(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return torch.randn(shape, device=self.device), torch.randn(shape, device=self.device)

    def forward_backward(self, formulation: Formulation, shape: tuple[int, int]) -> Callable[[], object]:
        logits, v = self.inputs(shape)
        logits.requires_grad_()
        return lambda: torch.autograd.grad(formulation(logits), logits, v)


def bandwidth(bench: Bench) -> None:
    """Forward and backward of large batches against a copy: bytes read and written once, over the median time."""
    for name, shape in LARGE.items():
        buffers = [bench.inputs(shape if bench.is_gpu else (2, min(shape[1], 4096))) for _ in range(3)]
        size = buffers[0][0].numel() * 4
        copy = 2 * size / bench.rotating([partial(b.copy_, a) for a, b in buffers])
        bench.record(shape=name, what="copy", GBs=round(copy / 1e9))
        _bandwidth_of(bench, name, buffers, copy)
        del buffers
        if bench.is_gpu:
            torch.cuda.empty_cache()


def _bandwidth_of(bench: Bench, shape: str, buffers: list[tuple[Tensor, Tensor]], copy: float) -> None:
    kernels, seed = backends.get(bench.backend), torch.tensor([1], device=bench.device)
    unit = (1.0, 0.0, 1.0)
    index, size = kernels.sample(buffers[0][0], seed, unit)[1], buffers[0][0].numel() * 4

    def measure(what: str, moved: int, calls: Sequence[Callable[[], object]]) -> None:
        taken = bench.rotating(calls)
        speed, us = moved / taken, round(taken * 1e6, 1)
        figures = {"us": us, "GBs": round(speed / 1e9), "share": round(speed / copy, 3)}
        bench.record(shape=shape, backend=bench.backend, what=what, **figures)

    measure("forward", 2 * size, [partial(kernels.sample, x, seed, unit) for x, _ in buffers])
    for estimator, (row, coefficient) in KERNELS.items():
        call = (index, seed, (1.0, coefficient, 1.0), row, 1)
        measure(f"{estimator} backward", 3 * size, [partial(kernels.surrogate_vjp, v, x, *call) for x, v in buffers])


def small(bench: Bench) -> None:
    """Forward + backward of a small batch, replayed as a graph and eagerly."""
    for name, (ours, _) in PAIRS.items():
        with do.use_backend(bench.backend):
            _record_small(bench, name, "ours", bench.forward_backward(ours, SMALL), backend=bench.backend)


def comparator(bench: Bench) -> None:
    """The same in plain PyTorch, as it is and through torch.compile."""
    for name, (_, plain) in PAIRS.items():
        _record_small(bench, name, "plain", bench.forward_backward(plain, SMALL))
        try:
            compiled = bench.forward_backward(torch.compile(plain) if bench.is_gpu else plain, SMALL)
            _record_small(bench, name, "compiled", compiled)
        except Exception as error:  # a compiler that does not work on one must not hide the others
            bench.record(estimator=name, what="compiled", error=f"{type(error).__name__}: {error}"[:300])


def _record_small(bench: Bench, estimator: str, what: str, call: Callable[[], object], **more: str) -> None:
    figures = {"eager": bench.wall(call, 100), "replay": bench.replay(call)}
    bench.record(estimator=estimator, what=what, **more, **_microseconds(figures))


def gumbel_rao_stage(bench: Bench) -> None:
    """Gumbel-Rao with many draws: time and extra memory against a formulation that materialises them."""
    draws = DRAWS if bench.is_gpu else 10
    for what, k in (("STGS", 1), ("ours", draws)):
        with do.use_backend(bench.backend):
            call = bench.forward_backward(partial(do.gumbel_rao, num_samples=k), SMALL)
            times = _microseconds({"eager": bench.wall(call, 50), "replay": bench.replay(call)})
            bench.record(what=what, backend=bench.backend, draws=k, **times, mib=round(_extra_mib(bench, call), 3))
    call = bench.forward_backward(partial(gumbel_rao, num_samples=draws), SMALL)
    times = _microseconds({"eager": bench.wall(call, 5)})
    bench.record(what="plain", draws=draws, **times, mib=round(_extra_mib(bench, call), 3))


def _extra_mib(bench: Bench, call: Callable[[], object]) -> float:
    if not bench.is_gpu:
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _microseconds(seconds: dict[str, float]) -> dict[str, float]:
    return {f"{name}_us": round(value * 1e6, 1) for name, value in seconds.items()}


STAGES = {"bandwidth": bandwidth, "small": small, "comparator": comparator, "gumbel_rao": gumbel_rao_stage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("json", type=Path)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("NOT COVERED: no GPU (torch.cuda.is_available() is False)")
    backends.get(backends.check(options.backend))  # what is asked for is measured, or nothing is
    STAGES[options.stage](Bench(options.device, options.backend, options.json))


if __name__ == "__main__":
    main()
