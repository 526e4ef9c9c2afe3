"""The Triton kernels compiled ahead of time, without a GPU: every specialisation that the host side can choose, and
the registers it takes.

The default suite compiles every kernel and estimator, in every other bucket, for sm_90 in float32, and a spread over
the other dtypes and architectures. ``make aot`` compiles all of them, keeps the binaries in ``build/aot``, from which
an interrupted run goes on, and writes tables of registers there; ``DISCRETE_OPS_AOT=80,90`` names the architectures.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_ahead import (
    BUCKETS,
    DTYPES,
    KERNELS,
    LONG,
    Binary,
    Case,
    calls,
    calls_of_binary,
    compile_case,
    compile_product,
    may_spill,
    without_interpreter,
)

from discrete_ops import reference

pytest.importorskip("triton", reason="NOT COVERED: triton is not installed, its kernels are not compiled")

FULL = tuple(int(name) for name in os.environ.get("DISCRETE_OPS_AOT", "").split(",") if name)
ARCHITECTURES = FULL or (80, 90, 100)
KEPT = Path(__file__).parents[1] / "build" / "aot"  # what a full run leaves
CELL = (
    "Registers a thread by the columns of the tile, in brackets bytes spilled (of tiles beyond 1024 columns and of "
    "float64 the whole stack); of rows aligned to 16 bytes and not the larger figure. Kernels of rows beyond 16384 "
    "columns have tiles of 4096."
)


def default_cases() -> list[Case]:
    """float32 on sm_90: every call in every other bucket and in those where registers run short (soft samples and
    their derivatives in three), rows aligned in every other one; binary variables in what is their own; and a spread
    over the rest."""
    cases = [
        Case(call, estimator, columns, (i + j // 2) % 2 == 0, "float32", 90)
        for i, (call, estimator) in enumerate(calls())
        for j, columns in enumerate((*BUCKETS, LONG))
        if (
            columns in (16, 1024, LONG) if call in ("soft", "tau") else (i + j) % 2 == 0 or columns in (512, 1024, LONG)
        )
    ]
    of_their_own = {reference.BINARY + name for name in ("", "gumbel_rao", "reinmax_cv")}
    cases += [Case(call, e, 4, False, "float32", 90) for call, e in calls_of_binary() if e in of_their_own]
    rest = [(d, a) for d in DTYPES for a in ARCHITECTURES if (d, a) != ("float32", 90)]
    sizes = itertools.cycle((16, 1024, LONG, 128))
    for (call, estimator), (dtype, architecture) in zip(itertools.cycle(calls()), 2 * rest, strict=False):
        cases.append(Case(call, estimator, next(sizes), dtype != "float64", dtype, architecture))
    return cases


def full_cases() -> list[Case]:
    return [
        Case(call, estimator, columns, is_aligned, dtype, architecture)
        for architecture in ARCHITECTURES
        for dtype in DTYPES
        for call, estimator in calls()
        for columns in (*BUCKETS, LONG)
        for is_aligned in ((False,) if dtype == "float64" else (False, True))
    ] + [
        Case(call, estimator, 4, False, dtype, architecture)
        for architecture in ARCHITECTURES
        for dtype in DTYPES
        for call, estimator in calls_of_binary()
    ]


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> list[Binary]:
    cases = full_cases() if FULL else default_cases()
    with (
        without_interpreter(KEPT / "cache" if FULL else tmp_path_factory.mktemp("triton")),
        concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool,
    ):
        compiled = shown(pool.map(compile_case, cases), len(cases)) if FULL else pool.map(compile_case, cases)
        # Launches that several estimators share are compiled once and reported once.
        found = {binary[:5]: binary for case in compiled for binary in case}
    return sorted(found.values())


def shown(compiled: Iterator[list[Binary]], count: int) -> Iterator[list[Binary]]:
    """The same with a progress bar."""
    from rich.progress import track

    return iter(track(compiled, "compiling", count))


def table(binaries: list[Binary]) -> str:
    header = f"{'kernel':22} {'dtype':9} {'sm':>3} {'registers':>9} {'spilled':>7} {'s':>5}  constants"
    rows = [
        f"{b.kernel:22} {b.dtype:9} {b.architecture:3} {b.registers:9} {b.spills:7} {b.seconds:5.1f}  {b.constants}"
        for b in binaries
    ]
    return "\n".join([header, *rows])


def summary(binaries: list[Binary], architecture: int) -> str:
    """Markdown: registers a thread of every specialisation, a row a kernel, a column a bucket of columns; the larger
    of the two where rows may be aligned or not, and the bytes spilled where there are any."""
    import triton

    count = sum(b.architecture == architecture for b in binaries)
    lines = [f"# Registers of the Triton kernels on sm_{architecture}", ""]
    lines.append(f"Triton {triton.__version__}, {count} binaries. {CELL}")
    for dtype in DTYPES:
        cells: dict[str, dict[int, tuple[int, int]]] = {}
        for b in binaries:
            if (b.architecture, b.dtype) == (architecture, dtype):
                named = b.constants.replace("BINARY=True", "binary").replace("BINARY=False", "")
                chosen = re.sub(r"\b(R|C|VECTOR|PARTS)=\w+ ?|\w+=(?=\w)", "", named).strip()
                row = cells.setdefault(f"{b.kernel.removesuffix('_kernel')} {chosen}".strip(), {})
                row[b.columns] = max(row.get(b.columns, (0, 0)), (b.registers, b.spills))
        columns = sorted({c for row in cells.values() for c in row})
        lines += ["", f"## {dtype}", "", "| kernel | " + " | ".join(map(str, columns)) + " |"]
        lines.append("| --- |" + " ---: |" * len(columns))
        for name, row in cells.items():
            texts = (f"{row[c][0]}" + (f" ({row[c][1]})" if row[c][1] else "") if c in row else "" for c in columns)
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def test_every_specialisation_compiles(binaries: list[Binary], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{table(binaries)}")
    if FULL:
        for architecture in FULL:
            (KEPT / f"triton_registers_sm{architecture}.md").write_text(summary(binaries, architecture))
    assert {b.kernel for b in binaries} == KERNELS
    assert {(b.dtype, b.architecture) for b in binaries} == set(itertools.product(DTYPES, ARCHITECTURES))
    assert all(b.registers > 0 for b in binaries)


def test_short_rows_stay_in_registers(binaries: list[Binary]) -> None:
    """Up to 1024 columns, in the dtypes made for speed."""
    few = {b: 64 if "STRATIFIED=True" in b.constants else 0 for b in binaries}  # bytes: an order of strata is made anew
    spilled = [b for b in binaries if b.spills > few[b] and not may_spill(b.dtype, b.columns)]
    assert not spilled, table(spilled)


def products() -> list[tuple[str, int, str, int]]:
    """Estimator, features, dtype, architecture."""
    if not FULL:
        return [("reinmax", 64, "bfloat16", 90)]
    of_all = itertools.product(("straight_through", "gst", "reinmax", "mix"), (16, 64, 128, 256))
    return [(*case, d, a) for case in of_all for d in ("float16", "bfloat16") for a in ARCHITECTURES]


def test_the_kernels_of_products_compile(tmp_path: Path) -> None:
    """Into the shared memory of every architecture; up to 64 features, and as many as a tile has rows, in registers."""
    with (
        without_interpreter(KEPT / "cache" if FULL else tmp_path),
        concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool,
    ):
        for case, kernels in zip(products(), pool.map(compile_product, *zip(*products(), strict=True)), strict=True):
            names = {name for name, _, _ in kernels}
            assert names == {f"{of}_kernel" for of in ("totals", "winner", "sums", "hidden", "tables")}
            assert max(shared for _, shared, _ in kernels) <= 163 * 1024, case
            if case[1] <= 64:
                assert all(stack == 0 for _, _, stack in kernels), (case, kernels)
