"""Who calls a backend: this process, or one of its own where what chooses it is read once a process: an instruction
set of the CPU, Triton's interpreter."""

import multiprocessing
import os
import pickle
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from discrete_ops import backends

from .calls import Outcome, outcome
from .cases import Case, contents

REFERENCE, EMULATED, INTERPRETED = "reference", "emulated cuda", "interpreted triton"
CPP = {"cpp AVX-512": "avx512", "cpp AVX2": "avx2", "cpp baseline": "baseline"}
TESTS = Path(__file__).parent.parent / "tests"


class Here:
    """A backend of this process."""

    def __init__(self, name: str, backend: str) -> None:
        self.name, self.backend = name, backend

    def ask(self, case: Case) -> None:
        self.case = case

    def answer(self) -> Outcome | str:
        """What came, or the error that was raised."""
        return called(self.case, self.backend)


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

    def ask(self, case: Case) -> None:
        self.pipe.send_bytes(pickle.dumps(case))

    def answer(self) -> Any:
        try:
            return pickle.loads(self.pipe.recv_bytes())
        except EOFError:
            self.process.join()
            return f"its process ended with status {self.process.exitcode}"


@cache
def callers() -> tuple[dict[str, Here | Worker], dict[str, str]]:
    """Every backend by its name, and what those lack that cannot run here."""
    found: dict[str, Here | Worker] = {REFERENCE: Here(REFERENCE, "reference")}
    lacking = {}
    runs = backends.build_info().get("instruction_set")
    started = [Worker(name, "cpp", {"DISCRETE_OPS_CPU": wanted}) for name, wanted in CPP.items() if wanted != runs]
    started.append(Worker(INTERPRETED, "triton", {"TRITON_INTERPRET": "1"}))
    found |= {name: Here(name, "cpp") for name, wanted in CPP.items() if wanted == runs}
    if shutil.which("g++") is None:
        lacking[EMULATED] = "no g++"
    else:
        sys.path.append(str(TESTS))
        from cuda_emulator import library

        emulator = library()
        emulator.machine()
        backends._BACKENDS["emulated"] = emulator
        found[EMULATED] = Here(EMULATED, "emulated")
    for worker in started:
        if why := worker.answer():
            lacking[worker.name] = why
        else:
            found[worker.name] = worker
    return found, lacking


def called(case: Case, backend: str) -> Outcome | str:
    try:
        with poisoned():
            return outcome(case, contents(case), backend)
    except Exception:
        return traceback.format_exc()


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
    pipe.send_bytes(pickle.dumps(lacking))
    while not lacking:
        try:
            case = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(pickle.dumps(called(case, backend)))


def _lacking(backend: str, environment: dict[str, str]) -> str:
    """Why the backend that was asked for does not run in this process; nothing where it does."""
    if backend not in backends._BACKENDS:
        return backends._MISSING[backend]
    runs, wanted = backends.build_info().get("instruction_set"), environment.get("DISCRETE_OPS_CPU")
    return "" if wanted in (None, runs) else f"no processor with {wanted}"
