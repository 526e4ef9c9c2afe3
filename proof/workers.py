"""Who calls a backend: this process, or one of its own where what chooses it is read once a process: an instruction
set of the CPU, Triton's interpreter."""

import multiprocessing
import os
import pickle
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from discrete_ops import backends

from .interpreter import hasten

REFERENCE, NATIVE = "reference", "cpp"  # with the best instruction set that there is
EMULATED, INTERPRETED = "emulated cuda", "interpreted triton"
CPP = {"cpp AVX-512": "avx512", "cpp AVX2": "avx2", "cpp baseline": "baseline"}
EVERY = (REFERENCE, *CPP, EMULATED, INTERPRETED)
TESTS = Path(__file__).parent.parent / "tests"


#: Something to do with a backend: a function of a module, of an argument and what ``backend=`` is.
Job = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Raised:
    """The answer of a job that failed: where, and why."""

    traceback: str


class Here:
    """A backend of this process."""

    def __init__(self, name: str, backend: str, lacking: str = "") -> None:
        self.name, self.backend, self.lacking = name, backend, lacking

    def ask(self, job: Job, argument: Any) -> None:
        self.asked = job, argument

    def answer(self) -> Any:
        """What came of it, or :class:`Raised`."""
        return done(*self.asked, self.backend)


class Worker:
    """A backend's own process, which ends with this one."""

    def __init__(self, name: str, backend: str, environment: dict[str, str]) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(backend, environment, there), daemon=True)
        with _environment({"OMP_NUM_THREADS": "1", **environment}):
            self.process.start()
        there.close()

    @cached_property
    def lacking(self) -> str:
        """Why the backend does not run here; nothing where it does."""
        return self.answer()

    def ask(self, job: Job, argument: Any) -> None:
        self.pipe.send_bytes(pickle.dumps((job, argument)))

    def answer(self) -> Any:
        try:
            return pickle.loads(self.pipe.recv_bytes())
        except EOFError:
            self.process.join()
            return Raised(f"its process ended with status {self.process.exitcode}")


@cache
def caller(name: str) -> Here | Worker:
    """Who calls a backend."""
    if name in (REFERENCE, NATIVE):
        return Here(name, name)
    if name == INTERPRETED:
        return Worker(name, "triton", {"TRITON_INTERPRET": "1"})
    if name == EMULATED:
        return _emulated()
    if backends.build_info().get("instruction_set") == CPP[name]:
        return Here(name, "cpp")
    return Worker(name, "cpp", {"DISCRETE_OPS_CPU": CPP[name]})


def callers() -> dict[str, Here | Worker]:
    """Those that run here."""
    return {name: caller(name) for name in EVERY if name not in lacking()}


@cache
def lacking() -> dict[str, str]:
    """Why the others do not."""
    started = [caller(name) for name in EVERY]  # all, before one is waited for
    return {who.name: who.lacking for who in started if who.lacking}


def _emulated() -> Here:
    if shutil.which("g++") is None:
        return Here(EMULATED, "emulated", "no g++")
    sys.path.append(str(TESTS))
    from cuda_emulator import library

    emulator = library()
    emulator.machine()
    backends._BACKENDS["emulated"] = emulator
    return Here(EMULATED, "emulated")


def done(job: Job, argument: Any, backend: str) -> Any:
    try:
        with poisoned():
            return job(argument, backend)
    except Exception:
        return Raised(traceback.format_exc())


@contextmanager
def poisoned() -> Iterator[None]:
    """``torch.empty`` comes filled with NaN: what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """For a process that starts now."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _serve(backend: str, environment: dict[str, str], pipe: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of NaN in the interpreter
    lacking = _lacking(backend, environment)
    if backend == "triton" and not lacking:
        hasten()
    pipe.send_bytes(pickle.dumps(lacking))
    while not lacking:
        try:
            job, argument = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(pickle.dumps(done(job, argument, backend)))


def _lacking(backend: str, environment: dict[str, str]) -> str:
    """Why the backend that was asked for does not run in this process; nothing where it does."""
    if backend not in backends._BACKENDS:
        return backends._MISSING[backend]
    runs, wanted = backends.build_info().get("instruction_set"), environment.get("DISCRETE_OPS_CPU")
    return "" if wanted in (None, runs) else f"no processor with {wanted}"
