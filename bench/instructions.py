"""How many instructions the CPU kernels execute: free of noise, so that a slow-down is seen on a busy machine, too.

python -m bench.instructions [--write]

Each case runs once on every instruction set of this processor. The trap flag stops the processor behind each
instruction (``instructions.cpp``), and those in the library's code are counted: neither Python's nor torch's. A row
costs the same beside many others as beside few, so few are enough: a stop takes a virtual machine some 30 us.
``--write`` renews ``results/instructions.json``, with which ``tests/test_instructions.py`` compares, and its table.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from discrete_ops import backends, reference

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "bench/results/instructions.json"
#: What a count may differ by from the committed one, as a share of it.
MARGIN = 0.03

#: Vectors are of this many floats.
LANES = {"avx512": 16, "avx2": 8, "baseline": 4}
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
#: The gap, eta, beta or temperature of the estimator, and the temperature of the sample.
COEFFICIENT, SAMPLE_TAU = 0.7, 1.0


class Case(NamedTuple):
    """One call of a kernel; its name says all that its count depends on."""

    name: str
    elements: int
    call: Callable[[], Any]


def cases(lanes: int) -> Iterator[Case]:
    """Every estimator on rows of 10, as many as two vectors have lanes; a long row, of 32 vectors, and other lengths,
    dtypes, temperatures and layouts with a few."""
    short, longest, long = (2 * lanes, 10), (lanes, 64), (1, 32 * lanes)
    for estimator in reference.NUMBERS:
        if not reference.is_binary(estimator) and not reference.is_stratified(estimator):
            yield backward(estimator, short)
    yield backward("gumbel_rao", short, num_samples=4)
    yield backward(reference.STRATIFIED + "gumbel_rao", short, num_samples=2)
    for shape in (short, longest, long):
        yield forward(shape)
    for shape in (longest, long):
        for estimator in ("straight_through", "gumbel_rao"):
            yield backward(estimator, shape)
    yield backward("mve", long)
    for estimator in ("gumbel_rao", "reinmax"):
        yield backward(estimator, short, tau=0.5)
    for dtype in FLOATS[1:]:
        yield forward(short, dtype)
        for shape in (short, longest, long):
            yield backward("straight_through", shape, dtype=dtype)
    yield backward("gumbel_rao", short, dtype=torch.float64)
    yield backward("straight_through", short, draws=2)
    yield backward("gumbel_rao", short, draws=2)
    yield forward((4 * lanes, 1), binary=True)
    yield backward(reference.BINARY + "gumbel_rao", (4 * lanes, 1))


def forward(shape: tuple[int, int], dtype: torch.dtype = torch.float32, binary: bool = False) -> Case:
    kernels, (logits, _, seed) = backends.get("cpp"), _inputs(shape, dtype)
    name = _name("binary sample" if binary else "sample", shape, dtype)
    return Case(name, logits.numel(), lambda: kernels.sample(logits, seed, (1.0, 0.0, SAMPLE_TAU), 0, binary))


def backward(
    estimator: str,
    shape: tuple[int, int],
    num_samples: int = 1,
    draws: int = 1,
    dtype: torch.dtype = torch.float32,
    tau: float = 1.0,
) -> Case:
    """The pull-back of one draw a row, or those of several added up."""
    kernels, (logits, grad, seed) = backends.get("cpp"), _inputs(shape, dtype, draws)
    index = torch.arange(draws * shape[0]) % max(shape[1], 2)
    spec = (logits, index.view(grad.shape[:-1]), seed, (tau, COEFFICIENT, SAMPLE_TAU), estimator, num_samples)
    run = kernels.surrogate_vjp_many if draws > 1 else kernels.surrogate_vjp
    said = [f"K={num_samples}"] * (num_samples > 1) + [f"{draws} draws"] * (draws > 1) + [f"tau={tau}"] * (tau != 1)
    return Case(_name(" ".join([estimator, *said]), shape, dtype), grad.numel(), lambda: run(grad, *spec))


def _inputs(shape: tuple[int, int], dtype: torch.dtype, draws: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator).to(dtype)
    grad = torch.randn((draws, *shape) if draws > 1 else shape, generator=generator).to(dtype)
    return logits, grad, torch.tensor([7])


def _name(what: str, shape: tuple[int, int], dtype: torch.dtype) -> str:
    """The same on every instruction set, whose shapes differ."""
    rows = "long row" if shape[0] == 1 else f"rows of {shape[1]}"
    return f"{what}, {rows}, {str(dtype).removeprefix('torch.')}"


def obstacle() -> str | None:
    """Why nothing can be counted here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"{sys.platform} on {platform.machine()}, where user code has no trap flag"
    if shutil.which("c++") is None:
        return "no C++ compiler"
    if "cpp" not in backends.available_backends():
        return "no compiled CPU library"
    if "libraries" not in backends.build_info():
        return "no build.json, which names the library's compiler"
    return None


def _counter() -> ctypes.CDLL:
    """The counter, put into the kernels' places in this process."""
    from discrete_ops.compiled import CPU_LIBRARY

    with tempfile.TemporaryDirectory() as directory:
        built = Path(directory, "counter.so")
        flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-o", str(built)]
        subprocess.run(["c++", *flags, str(ROOT / "bench/instructions.cpp")], check=True)
        counter = ctypes.CDLL(str(built))
    library, counter.counted_instructions.restype = ctypes.CDLL(str(CPU_LIBRARY)), ctypes.c_int64
    library.discrete_ops_kernels.restype = ctypes.c_void_p
    code_of = rf"^(\w+)-(\w+) r-xp .* {re.escape(str(CPU_LIBRARY.resolve()))}$"
    maps = re.findall(code_of, Path("/proc/self/maps").read_text(), re.MULTILINE)
    (code,) = ([ctypes.c_size_t(int(end, 16)) for end in range_] for range_ in maps)
    if not counter.count_instructions(ctypes.c_void_p(library.discrete_ops_kernels()), *code):
        raise RuntimeError("the library's table of kernels cannot be written to")
    return counter


def count_on(name: str) -> dict[str, float] | None:
    """Every case's count an element, on an instruction set that this process has not chosen yet; None: it has none."""
    os.environ["DISCRETE_OPS_CPU"] = name
    if backends.build_info()["instruction_set"] != name:
        return None
    torch.set_num_threads(1)
    counter, counts = _counter(), {}
    for case in cases(LANES[name]):
        case.call()
        counts[case.name] = round(counter.counted_instructions() / case.elements, 2)
    return counts


def count() -> dict[str, Any]:
    """Every case's count an element, on each instruction set of this processor, with what they depend on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch"])
    counts = {}
    for name in LANES:
        with ProcessPoolExecutor(1, mp_context=context) as process:  # whose death is an error here
            counts[name] = process.submit(count_on, name).result()
    return {"compiler": compiler(), "counts": {name: of for name, of in counts.items() if of}}


def compiler() -> str:
    """Of the library, as its build noted it."""
    return backends.build_info()["libraries"]["compiler"]


def comparable(now: dict[str, Any], committed: dict[str, Any]) -> str | None:
    """Why counts say nothing about each other, or None."""
    ours, theirs = (re.match(r"\w+ \d+", counts["compiler"])[0] for counts in (now, committed))
    return None if ours == theirs else f"this library is of {ours}, the committed counts are of {theirs}"


def differences(now: dict[str, Any], committed: dict[str, Any]) -> list[str]:
    """What is beyond the margin, in words, on the instruction sets of both."""
    found = []
    for name in sorted(now["counts"].keys() & committed["counts"].keys()):
        ours, theirs = now["counts"][name], committed["counts"][name]
        for case in {**theirs, **ours}:
            got, was = ours.get(case, 0), theirs.get(case, 0)
            if abs(got - was) > MARGIN * was:
                change = "more" if got > was else "fewer: renew them with python -m bench.instructions --write"
                share = f"{abs(got / was - 1):.1%} " if was else ""
                found.append(
                    f"{name} {case}: got {got:.1f} instructions an element, committed {was:.1f}: {share}{change}"
                )
    return found


def markdown(results: dict[str, Any]) -> str:
    counts = results["counts"]
    lines = [
        f"Commit {results['commit'][:10]}, {results['compiler']}. Instructions an element of each sample, or of each",
        "draw's gradient; `bench/instructions.py` says what is counted.",
        "",
        f"| kernel | {' | '.join(counts)} |",
        "|---|" + "---:|" * len(counts),
    ]
    for case in next(iter(counts.values())):
        lines.append(f"| {case} | {' | '.join(f'{of[case]:.1f}' for of in counts.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="renew the committed counts")
    options = parser.parse_args()
    if reason := obstacle():
        raise SystemExit(f"no instruction is counted: {reason}")
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    results = {"commit": commit, **count()}
    print(markdown(results), end="")
    if options.write:
        COMMITTED.write_text(json.dumps(results, indent=1) + "\n")
        COMMITTED.with_suffix(".md").write_text(markdown(results))


if __name__ == "__main__":
    main()
