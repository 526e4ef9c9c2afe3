"""The Triton kernels compiled ahead of time, without a GPU: every specialisation that the host side can choose, the
registers it takes, and that nothing but a bucket of sizes, an estimator, a dtype or an alignment makes another one.

The default suite compiles every kernel and estimator, in every other bucket, for sm_90 in float32, and a spread over
the other dtypes and architectures. ``make aot`` compiles all of them, keeps the binaries in ``build/aot``, from which
an interrupted run goes on, and writes tables of registers there; ``DISCRETE_OPS_AOT=80,90`` names the architectures.
"""

import concurrent.futures
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from discrete_ops import reference

pytest.importorskip("triton", reason="NOT COVERED: triton is not installed, its kernels are not compiled")

FULL = tuple(int(name) for name in os.environ.get("DISCRETE_OPS_AOT", "").split(",") if name)
ARCHITECTURES = FULL or (80, 90, 100)
DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BUCKETS = tuple(2**i for i in range(2, 15))  # in registers
LONG = 65536
SOFT = ("gumbel_rao", "gst", "gst_pi")
KERNELS = {
    *("sample_kernel", "sample_totals_kernel", "sample_part_kernel"),
    *("surrogate_vjp_kernel", "tops_kernel", "term_kernel"),
}
NO_SPILLS = 1024  # columns up to which nothing may leave the registers
KEPT = Path(__file__).parents[1] / "build" / "aot"  # what a full run leaves
CELL = (
    "Registers a thread by the columns of the tile, in brackets bytes spilled (of tiles beyond 1024 columns and of "
    "float64 the whole stack); of rows aligned to 16 bytes and not the larger figure. Kernels of rows beyond 16384 "
    "columns have tiles of 4096."
)


class Case(NamedTuple):
    """One call of the host side: "sample", "soft" or "vjp"; an estimator; a row; whether rows are aligned to 16
    bytes."""

    call: str
    estimator: str
    columns: int
    is_aligned: bool
    dtype: str
    architecture: int


class Binary(NamedTuple):
    kernel: str
    constants: str
    dtype: str
    architecture: int
    columns: int
    warps: int
    registers: int
    spills: int  # bytes
    seconds: float


# ---------------------------------------------------------------------------------------------------
# In a process without the interpreter: what the host side launches, and its compilation


def launches(
    call: str, estimator: str, logits: torch.Tensor, tau: Any = 1.0, coefficient: float = 1.0, k: int = 3
) -> Any:
    """``(kernel, arguments, options)`` of every launch of one call."""
    from discrete_ops.triton_kernels import operators

    recorded: list[Any] = []

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        recorded.append((kernel, arguments, options))

    seed, index = torch.zeros(1, dtype=torch.int64), torch.zeros(logits.shape[:-1], dtype=torch.int64)
    if call == "sample":
        operators.sample(launch, logits, seed)
    else:
        grad = None if call == "soft" else torch.empty_like(logits)
        taus, tau = (tau, 0.0) if isinstance(tau, torch.Tensor) else (None, tau)
        operators.surrogate_vjp(launch, grad, logits, index, seed, taus, tau, estimator, coefficient, k)
    return recorded


def specialise(architecture: int, kernel: Any, arguments: Any, options: Any) -> tuple[str, Any]:
    """Triton's own cache key of a launch, and what it would hand to its compiler."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import compute_cache_key, create_function_from_signature

    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)
    bound, specialization, rest = create_function_from_signature(kernel.signature, kernel.params, backend)(
        *arguments, **options
    )
    key = compute_cache_key({}, specialization, rest)
    parsed, signature, constants, attributes = kernel._pack_args(backend, rest, bound, specialization, rest)
    return kernel.__name__ + key, (ASTSource(kernel, signature, constants, attributes), target, parsed)


def matrix(case: Case) -> torch.Tensor:
    columns = case.columns if case.is_aligned else case.columns - 1
    return torch.empty((3, columns), dtype=DTYPES[case.dtype])


def compile_case(case: Case) -> list[Binary]:
    """Compile what one call launches. Runs in a worker process; binaries are shared through Triton's cache on disk."""
    import triton

    binaries = []
    for kernel, arguments, options in launches(case.call, case.estimator, matrix(case)):
        _, (source, target, parsed) = specialise(case.architecture, kernel, arguments, options)
        began = time.perf_counter()
        compiled = triton.compile(source, target=target, options=parsed.__dict__)
        seconds = time.perf_counter() - began
        constants = {name: value for name, value in options.items() if name != "num_warps"}
        registers, spills = resources(compiled, case, constants["C"])
        binaries.append(
            Binary(
                kernel.__name__,
                " ".join(f"{name}={value}" for name, value in constants.items()),
                case.dtype,
                case.architecture,
                constants["C"],
                options["num_warps"],
                registers,
                spills,
                seconds,
            )
        )
    return binaries


def resources(compiled: Any, case: Case, columns: int) -> tuple[int, int]:
    """Registers a thread and bytes spilled, from the assembler's own tools, which need no driver.

    A stack is not yet a spill. Which it is, costs another run of the assembler, half a minute for the largest tiles;
    where spills are allowed all of it is taken for one.
    """
    from triton import knobs
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path))
        registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())  # type: ignore[union-attr]
        if stack == 0 or may_spill(case.dtype, columns):
            return registers, stack
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.asm["ptx"])
        target = re.search(r"\.target (sm_\w+)", compiled.asm["ptx"])[1]  # type: ignore[index]
        report = _run(get_ptxas(case.architecture).path, "-v", f"--gpu-name={target}", str(source), "-o", os.devnull)
        return registers, sum(map(int, re.findall(r"(\d+) bytes spill stores", report)))


def may_spill(dtype: str, columns: int) -> bool:
    """Long rows may, and the dtype that is not made for speed."""
    return columns > NO_SPILLS or dtype == "float64"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------------
# The matrix


def calls() -> list[tuple[str, str]]:
    return [("sample", ""), *(("vjp", e) for e in reference.TERMS), *(("soft", e) for e in SOFT)]


def default_cases() -> list[Case]:
    """float32 on sm_90: every call in every other bucket and in those where registers run short (soft samples in
    three), rows aligned in every other one; and a spread over the rest."""
    cases = [
        Case(call, estimator, columns, (i + j // 2) % 2 == 0, "float32", 90)
        for i, (call, estimator) in enumerate(calls())
        for j, columns in enumerate((*BUCKETS, LONG))
        if (columns in (16, 1024, LONG) if call == "soft" else (i + j) % 2 == 0 or columns in (512, 1024, LONG))
    ]
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
    ]


@contextlib.contextmanager
def without_interpreter(cache: Path) -> Iterator[None]:
    """Processes started inside compile, into a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        yield


def in_a_process(call: str) -> Any:
    """What a call of a function of this file returns, in a new process; as JSON has it."""
    script = f"import json, test_triton_aot as t; print(json.dumps(t.{call}))"
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


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
                words = b.constants.replace("SOFT=True", "soft")
                chosen = re.sub(r"\b(R|C|VECTOR|PARTS|SOFT)=\w+ ?|\w+=(?=\w)", "", words).strip()
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
    spilled = [b for b in binaries if b.spills and not may_spill(b.dtype, b.columns)]
    assert not spilled, table(spilled)


# ---------------------------------------------------------------------------------------------------
# Reuse


def keys(rows: int, columns: int, architecture: int = 90, **call: Any) -> dict[str, list[str]]:
    """Cache keys of the launches of one call."""
    logits = torch.empty(rows, columns)
    if isinstance(tau := call.get("tau"), torch.Tensor) and rows % tau.numel():
        call["tau"] = tau[:1]
    recorded = [
        *launches("sample", "", logits),
        *itertools.chain.from_iterable(launches("vjp", e, logits, **call) for e in reference.TERMS),
    ]
    return sorted({specialise(architecture, *launch)[0] for launch in recorded})


def reuse() -> dict[str, Any]:
    """Runs in a process without the interpreter."""
    tensors = (torch.tensor([0.3]), torch.tensor([0.5, 1.0], dtype=torch.float64))
    calls = [
        *({"tau": tau} for tau in (1.0, 0.999, 0.5, 1e-3, 1e3, *tensors)),
        *({"coefficient": c} for c in (0.0, 1.0, 0.3, 1e30)),
        *({"k": k} for k in (1, 2, 16, 32, 33, 1000)),
    ]
    short = {
        "aligned": [keys(rows, 1024 - 4 * n, **call) for rows in (1, 2, 16, 3000) for n in (0, 3) for call in calls],
        "unaligned": [keys(rows, 1023 - 4 * n, **call) for rows in (1, 2, 16, 3000) for n in (0, 3) for call in calls],
    }
    long = [
        keys(rows, 65536 - 16 * n, **call) for rows in (2, 16, 600) for n in (0, 3) for call in calls if "k" not in call
    ]
    return {
        "short": {name: [len(set(itertools.chain(*k))), len(k[0])] for name, k in short.items()},
        "long": [len(set(itertools.chain(*long))), len(long[0])],
        "buckets": len({keys(2, n)[0] for n in (*BUCKETS, LONG)}),
    }


def test_sizes_and_numbers_compile_nothing_new(tmp_path: Path) -> None:
    """One binary an estimator, whatever tau, the coefficient, K, the rows, and the columns inside a bucket are."""
    with without_interpreter(tmp_path):
        found = in_a_process("reuse()")
    estimators = len(reference.TERMS)
    assert found["short"] == {
        "aligned": [1 + estimators, 1 + estimators],
        "unaligned": [1 + estimators, 1 + estimators],
    }
    assert found["long"][0] == found["long"][1]
    assert found["buckets"] == len(BUCKETS) + 1  # so the keys do tell specialisations apart


# ---------------------------------------------------------------------------------------------------
# torch.compile


def translate_copies(folder: Path, architecture: int = 90) -> list[str]:
    """Put every kernel through Triton's front end, which resolves the names in it, from the copy of its source that
    torch.compile makes."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as source_of
    from triton._C.libtriton import ir
    from triton.compiler import ASTSource, make_backend

    recorded = []
    for columns in (61, LONG):
        logits = torch.empty(3, columns)
        recorded += launches("sample", "", logits)
        recorded += itertools.chain.from_iterable(launches("vjp", e, logits) for e in reference.TERMS)
        recorded += itertools.chain.from_iterable(launches("soft", e, logits) for e in SOFT)
    sys.path.insert(0, str(folder))
    translated = {}
    for kernel, arguments, options in recorded:
        key, (source, target, parsed) = specialise(architecture, kernel, arguments, options)
        if key in translated:
            continue
        name = f"copy_of_{kernel.__name__}"
        if not (folder / f"{name}.py").exists():
            head = "import triton\nimport triton.language as tl\n\n@triton.jit\n"
            (folder / f"{name}.py").write_text(head + source_of(kernel))
        copy = getattr(importlib.import_module(name), kernel.__name__)
        backend, context = make_backend(target), ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        compiler = (backend.get_codegen_implementation(parsed), backend.get_module_map(), context)
        copied = ASTSource(copy, source.signature, source.constants, source.attrs)
        translated[key] = str(copied.make_ir(target, parsed, *compiler))
        assert kernel.__name__ in translated[key]
    return [key.split("_kernel")[0] + "_kernel" for key in translated]


def test_torch_compile_can_copy_every_kernel(tmp_path: Path) -> None:
    """It takes a kernel into its own module as text: every name in it must come along."""
    with without_interpreter(tmp_path):
        kernels = in_a_process(f"translate_copies(t.Path({str(tmp_path)!r}))")
    assert set(kernels) == KERNELS
