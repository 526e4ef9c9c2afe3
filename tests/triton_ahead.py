"""What the host side of the Triton backend launches: recorded, specialised as Triton does it, compiled ahead of time.

None of it needs a GPU; all of it needs a process without the interpreter.
"""

import contextlib
import json
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

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BUCKETS = tuple(2**i for i in range(2, 15))  # in registers
LONG = 65536
MODES = {"vjp": "pull_back", "soft": "soft", "tau": "tau"}  # of the calls that are of an estimator
KERNELS = {
    *("sample_kernel", "sample_totals_kernel", "sample_part_kernel"),
    *("surrogate_vjp_kernel", "tops_kernel", "term_kernel"),
}
NO_SPILLS = 1024  # columns up to which nothing may leave the registers


class Case(NamedTuple):
    """One call of the host side: "sample", or a key of ``MODES``; an estimator; a row; whether rows are aligned to 16
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


def calls() -> list[tuple[str, str]]:
    """Every call that the host side serves, with its estimator."""
    of_estimators = [("vjp", e) for e in (*reference.TERMS, reference.STRATIFIED + "gumbel_rao")]
    of_soft_samples = [
        (call, e) for call in ("soft", "tau") for e in reference.TERMS if e in reference.WITH_SOFT_SAMPLE
    ]
    return [("sample", ""), *of_estimators, *of_soft_samples]


def calls_of_binary() -> list[tuple[str, str]]:
    """The same on binary variables."""
    return [(call, reference.BINARY + estimator) for call, estimator in calls()]


def launches(
    call: str,
    estimator: str,
    logits: torch.Tensor,
    parameters: torch.Tensor | None = None,
    numbers: tuple[float, float, float] = (1.0, 1.0, 1.0),
    first_row: int = 0,
    k: int = 3,
) -> Any:
    """``(kernel, arguments, options)`` of every launch of one call."""
    from discrete_ops.triton_kernels import launch as launch_heuristic
    from discrete_ops.triton_kernels import operators

    recorded: list[Any] = []
    if estimator == "mve" and logits.shape[-1] > launch_heuristic.MOST_COLUMNS:
        return recorded  # PyTorch's own kernels serve it

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        recorded.append((kernel, arguments, options))

    if estimator == reference.BINARY + "gumbel_rao":
        k = reference.ALL_DRAWS
    seed, index = torch.zeros(1, dtype=torch.int64), torch.zeros(logits.shape[:-1], dtype=torch.int64)
    if call == "sample":
        operators.sample(launch, logits, seed, parameters, *numbers, first_row, reference.is_binary(estimator))
    else:
        grad = torch.empty_like(logits) if call == "vjp" else None
        of_call = (logits, index, seed, parameters, *numbers, first_row, estimator, k)
        operators.surrogate(launch, MODES[call], grad, *of_call)
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
    if reference.is_binary(case.estimator):
        columns = 1
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


def compile_product(estimator: str, features: int, dtype: str, architecture: int) -> list[tuple[str, int, int]]:
    """What a draw and a pull-back of logits that are a product launch: kernel, bytes of shared memory, of stack."""
    import triton
    from discrete_ops.triton_kernels import linear_embedding as product

    recorded: list[Any] = []

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        recorded.append((kernel, arguments, options))

    rows, columns = (torch.zeros((length, features), dtype=DTYPES[dtype]) for length in (8, 100))
    bias, seed, index = columns[:, 0], torch.zeros(1, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
    parameters = torch.ones((1, 3), dtype=torch.float64)
    product.sample(rows, columns, bias, features, seed, parameters, 0, launch)
    call = (rows, rows, columns, bias, columns, index, parameters, estimator)
    product.pull_back(*call, 1, True, True, launch)
    found = []
    for kernel, arguments, options in recorded:
        _, (source, target, parsed) = specialise(architecture, kernel, arguments, options)
        compiled = triton.compile(source, target=target, options=parsed.__dict__)
        case = Case("", estimator, features, True, "float64", architecture)  # whose stack is all taken for spills
        found.append((kernel.__name__, compiled.metadata.shared, resources(compiled, case, features)[1]))
    return found


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


@contextlib.contextmanager
def without_interpreter(cache: Path) -> Iterator[None]:
    """Processes started inside compile, into a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        yield


def in_a_process(module: str, call: str) -> Any:
    """What a call of a function of a test's module returns, in a new process; as JSON has it."""
    script = f"import json, {module} as t; print(json.dumps(t.{call}))"
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])
