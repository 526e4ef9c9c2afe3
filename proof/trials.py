"""What a child tries, in a process that has not imported the package yet: each says what did not hold."""

import functools
import hashlib
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from .children import outcome

THREADS = 4


@functools.cache
def data() -> tuple[Any, Any]:
    """Logits and a gradient; made before a fork, since torch would make them on threads."""
    import torch

    rows = torch.arange(20_000 * 16).reshape(-1, 16)
    return tuple(torch.remainder(rows * factor, 1.0).float() for factor in (0.61803, 0.41421))  # type: ignore[return-value]


def work(seed: int) -> str:
    """Of large calls, forward and backward: all their bits, in short."""
    import torch

    import discrete_ops as do

    logits, grad = data()
    logits.requires_grad_()
    bits = hashlib.sha256()
    for call in (do.straight_through, do.gst, functools.partial(do.gumbel_rao, tau=0.5, num_samples=4)):
        sample = call(logits, seed=seed)
        bits.update(sample.detach().numpy().tobytes())
        bits.update(torch.autograd.grad(sample, logits, grad)[0].numpy().tobytes())
    return bits.hexdigest()


def forks(times: int) -> list[str]:
    """Of a process whose kernels, and torch's, ran on threads."""
    import torch

    torch.set_num_threads(THREADS)
    torch.ones(10**6).exp()
    mine = [work(seed) for seed in range(2)]
    tried = [outcome(work, i % 2, 60) for i in range(times)]
    return [str(tried[i]) for i in range(times) if tried[i].said != mine[i % 2]]


def first_import(has_library: bool) -> list[str]:
    """Eight threads import and call at once; without the library they are told so once."""
    assert "discrete_ops" not in sys.modules
    said: list[str] = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_: said.append(str(message))
    if not has_library:
        sys.modules["discrete_ops.cpp"] = sys.modules["discrete_ops.cuda"] = None  # type: ignore[assignment]
    sys.setswitchinterval(1e-6)
    ready, found = threading.Barrier(8), dict[int, list[int]]()

    def call(seed: int) -> list[int]:
        import torch

        import discrete_ops as do

        return do.gst(torch.ones(50, 20), seed=seed, return_index=True)[1].tolist()

    def thread(seed: int) -> None:
        ready.wait()
        found[seed] = call(seed)

    threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    faults = [f"thread {seed}: other samples, or none" for seed in range(8) if found.get(seed) != call(seed)]
    told = [text for text in said if text.startswith("discrete_ops")]
    return faults if len(told) == (not has_library) else [*faults, f"warned {told}"]


def interrupts(times: int) -> list[str]:
    """Ctrl-C at a random moment of calls of some ten milliseconds."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job is started without
    mine, faults = work(0), []
    begun = time.monotonic()
    work(0)
    duration = time.monotonic() - begun
    for i in range(times):
        delay = random.Random(i).uniform(0, 2 * duration)
        try:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
            for _ in range(100):  # the start is interrupted, too, where this process has to wait for its processor
                work(0)
            faults.append("an interrupt was lost")
        except KeyboardInterrupt:
            pass
        if work(0) != mine:
            faults.append("other bits after an interrupt")
    return faults


def exits(how: str) -> None:
    """While daemon threads are in calls."""
    import torch

    import discrete_ops as do

    logits = torch.randn(2000, 32)
    call = functools.partial(torch.exp, logits) if how == "torch" else functools.partial(do.gumbel_rao, logits, 0.5, 4)

    def loop() -> None:
        while True:
            call()

    for _ in range(3):
        threading.Thread(target=loop, daemon=True).start()
    time.sleep(random.uniform(0.02, 0.2))
    os._exit(0) if how == "at once" else sys.exit()


def traced(path: str) -> list[str]:
    """Where the file is missing, trace a call into it; else run what it holds, and the same call."""
    import torch

    if not Path(path).exists():
        import discrete_ops as do

        example = torch.ones(5, 7)
        torch.jit.save(torch.jit.trace(lambda x: do.gst(x, seed=3), example, check_trace=False), path)
    told = ""
    try:
        torch.jit.load(path)
    except RuntimeError as error:
        told = str(error)
    had = "discrete_ops" in sys.modules
    import discrete_ops as do

    logits = torch.linspace(-1, 1, 35).reshape(5, 7)
    same = torch.equal(torch.jit.load(path)(logits), do.gst(logits, seed=3))
    faults = [] if same else ["other samples"]
    return faults if had or "discrete_ops::draw" in told else [*faults, f"without the package torch said {told!r}"]


TRIALS = {trial.__name__: trial for trial in (forks, first_import, interrupts, exits, traced)}


def tried(case: tuple[str, Any]) -> Any:
    """A trial by its name, and what it takes."""
    return TRIALS[case[0]](case[1])
