"""What a forward and a backward pass hold at their peak, beside their inputs.

As the allocator counts it: on a CPU torch's profiler, the same number each time; on a GPU the allocator itself. What a
library takes from the system by itself would not be in it, so that Gumbel-Rao, with few and with many draws, is also
held to the resident memory of processes that do nothing else, where the system tells it (Linux).
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import formulations, resident, speed
from .cases import DRAWS, ESTIMATORS, Case

CENTRE = Case("memory", ())
RESIDENT = (("ours", 1), ("ours", 1000), ("plain", 1000))


def peak(call: Callable[[], object], device: str = "cpu") -> int:
    """Bytes over what is allocated before the call; it is made once before, for what stays."""
    call()
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def participants() -> Iterator[tuple[str, str, int]]:
    """(estimator, who, draws): everyone at 100 draws; Gumbel-Rao against its number."""
    for estimator in ESTIMATORS:
        for who in ("ours", *formulations.PEERS.get(estimator, ())):
            yield estimator, who, 100 if estimator in formulations.OF_DRAWS else 1
    for draws in DRAWS:
        for who in ("ours", *formulations.PEERS["gumbel_rao"]) if draws != 100 else ():
            yield "gumbel_rao", who, draws


def measure(device: str = "cpu", case: Case = CENTRE) -> Iterator[dict[str, Any]]:
    """A record for each, of the centre of the cases; ``held`` is the sample and the gradient, which any of them has."""
    logits, v = case.inputs(device)
    for estimator, who, draws in participants():
        call = speed.pass_of(formulations.of(estimator, who, draws), logits, v, "both")
        names = {"estimator": estimator, "who": who, "rows": case.rows, "columns": case.columns, "draws": draws}
        yield {**names, "bytes": peak(call, device), "held": 2 * case.size()}


def processes() -> Iterator[dict[str, Any]]:
    """Bytes that Gumbel-Rao's peak is over what was resident before, each in a process of its own."""
    for who, draws in RESIDENT if resident.STATUS.exists() else ():
        command = [sys.executable, "-m", "bench.memory", who, str(draws)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        yield {"who": who, "draws": draws, "bytes": int(done.stdout)}


def _child(who: str, draws: int) -> None:
    torch.set_num_threads(1)
    logits, v = CENTRE.inputs("cpu")
    speed.pass_of(formulations.of("straight_through", "ours"), logits, v, "both")()  # loads the library
    call = speed.pass_of(formulations.of("gumbel_rao", who, draws), logits, v, "both")
    resident.reset_peak()
    before = resident.now()
    call()
    print(resident.peak() - before)


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
