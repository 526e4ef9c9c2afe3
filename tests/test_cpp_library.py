"""The compiled CPU library: its vector maths, its Philox, and what is said when it does not load."""

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import discrete_ops as do
from discrete_ops import backends, philox

needs_cpp = pytest.mark.skipif(
    "cpp" not in backends.available_backends(), reason="NOT COVERED: the cpp backend is not installed"
)

NO_BINDING = "NOT COVERED: no discrete_ops._C, which is not in a wheel, nor for another Python than a tree was built by"


# On x86-64 a longdouble has 11 bits more than a double.
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
needs_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="NOT COVERED: a longdouble is no wider than a double here"
)
DTYPES = [np.float32, pytest.param(np.float64, marks=needs_longdouble)]


def vector_math(function: str, x: np.ndarray) -> np.ndarray:
    from discrete_ops import compiled

    y = np.full_like(x, np.nan)
    library = ctypes.CDLL(str(compiled.CPU_LIBRARY))
    run = library.discrete_ops_math if x.dtype == np.float32 else library.discrete_ops_double_math
    pointers = (a.ctypes.data_as(ctypes.c_void_p) for a in (x, y))
    run(ctypes.c_char(function.encode()), *pointers, ctypes.c_int64(x.size))
    return y


def ulps(got: np.ndarray, function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    dtype = x.dtype.type
    exact = function(x.astype(WIDER[dtype]))
    unit = np.spacing(np.abs(exact).astype(dtype)).astype(exact.dtype)
    return float((np.abs(got.astype(exact.dtype) - exact) / unit).max())


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponential_functions_to_two_ulp(dtype: type) -> None:
    rng = np.random.default_rng(0)
    least, most = (-87, 88) if dtype is np.float32 else (-708, 709)
    small = np.logspace(-30, 0, 10**6)
    x = np.concatenate([-small, small, rng.uniform(least, most, 10**6), np.linspace(least, least + 1, 10**4)])
    x = np.append(x, [least, most]).astype(dtype)
    assert ulps(vector_math("e", x), np.exp, x) <= 2
    least, most = (-126, 127) if dtype is np.float32 else (-1022, 1023)
    x = np.concatenate([-small, small, rng.uniform(least, most, 10**6), np.linspace(most - 1, most, 10**4)])
    x = np.append(x, [least, most]).astype(dtype)
    assert ulps(vector_math("2", x), np.exp2, x) <= 2
    for function in "e2":
        ends = vector_math(function, np.array([-np.inf, -1e38, least - 24, 0, -0.0], dtype=dtype))
        assert ends.tolist() == [0, 0, 0, 1, 1]


@needs_cpp
@pytest.mark.parametrize("dtype", DTYPES)
def test_log1p_to_two_ulp(dtype: type) -> None:
    rng = np.random.default_rng(0)
    least, most = (-37, 38) if dtype is np.float32 else (-307, 308)
    below = np.concatenate([np.logspace(least, 0, 10**6), rng.uniform(0, 1, 10**6)])
    from_minus_one = -1 + np.logspace(-16, 0, 10**5)
    x = np.concatenate([-below[below < 1], from_minus_one, np.logspace(least, most, 10**6), rng.uniform(0, 5, 10**6)])
    x = x.astype(dtype)
    x = x[x > -1]
    assert ulps(vector_math("l", x), np.log1p, x) <= 2


@needs_cpp
def test_a_nan_stays_one_in_double() -> None:
    x = np.array([np.nan, -np.nan, np.uint64(0x7FF8000000000FFF).view(np.float64)])
    assert all(np.isnan(vector_math(function, x)).all() for function in "e2l")


@needs_cpp
@pytest.mark.parametrize("name", ["avx2", "baseline"])
def test_lesser_instruction_sets_to_two_ulp(name: str) -> None:
    environment = {**os.environ, "DISCRETE_OPS_CPU": name}
    asked = [sys.executable, "-c", "import discrete_ops; print(discrete_ops.build_info()['instruction_set'])"]
    chosen = subprocess.run(asked, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    if chosen != name:
        assert name != "baseline" or platform.machine() != "x86_64"  # which has it in any case
        pytest.skip(f"NOT COVERED: {name}, which this machine lacks")
    tests = ["test_exponential_functions_to_two_ulp", "test_log1p_to_two_ulp", "test_a_nan_stays_one_in_double"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{__file__}::{test}" for test in tests)],
        env=environment,
        check=True,
    )


@needs_cpp
def test_philox_of_the_binding_is_that_of_the_reference() -> None:
    binding = pytest.importorskip("discrete_ops._C", reason=NO_BINDING)
    rng = np.random.default_rng(1)
    for seed, block, draw, row in zip(*(rng.integers(0, 2**b, 50) for b in (62, 31, 32, 40)), strict=True):
        counter = [torch.tensor([int(c)]) for c in (block, draw, row & 0xFFFFFFFF, row >> 32)]
        want = philox.philox4x32(torch.tensor([int(seed)]), *counter)
        assert binding.philox_words(int(seed), int(block), int(draw), int(row)) == tuple(int(w) for w in want)


@needs_cpp
def test_build_info_names_compiler_and_instruction_set() -> None:
    info = backends.build_info()
    assert info["instruction_set"] in ("avx512", "avx2", "baseline", "neon")
    assert "cpp" in info["backends"]
    assert info["libraries"]["machine"] == platform.machine()
    assert re.match(r"(gcc|clang) \d", info["libraries"]["compiler"])


@needs_cpp
def test_build_info_is_what_the_compiler_says_of_itself() -> None:
    binding = pytest.importorskip("discrete_ops._C", reason=NO_BINDING)
    libraries = backends.build_info()["libraries"]
    assert binding.build_info() == {name: libraries[name] for name in ("compiler", "torch", "cplusplus")}


@needs_cpp
def test_a_library_that_does_not_load_says_what_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from discrete_ops import compiled

    broken = tmp_path / "libdiscrete_ops_cpu.so"
    broken.write_bytes(b"not a library")
    (tmp_path / "build.json").write_text('{"torch": "1.2.3", "system": "Plan9", "machine": "vax"}')
    monkeypatch.setattr(compiled, "_HERE", tmp_path)
    with pytest.raises(ImportError, match=r"built for torch 1\.2\.3 on Plan9 vax, found torch") as error:
        compiled.load(broken.name)
    assert torch.__version__ in str(error.value)
    with pytest.raises(ImportError, match="built without the compiler"):
        compiled.load("missing.so")


@needs_cpp
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="NOT COVERED: a kernel without huge pages to ask for",
)
def test_large_results_are_in_huge_pages() -> None:
    """Of a size for which malloc has new memory each time, with marks that are no other array's."""
    logits = torch.zeros(2**22, 4, requires_grad=True)
    sample = do.straight_through(logits, backend="cpp")
    (gradient,) = torch.autograd.grad(sample, logits, torch.ones_like(logits))
    for x in (sample, gradient):
        assert "hg" in flags_of_memory(x.data_ptr() + x.nbytes // 2)


def flags_of_memory(address: int) -> list[str]:
    """What Linux has noted of the part of this process's memory that the address is in."""
    is_inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(bound, 16) for bound in bounds.groups())
            is_inside = begin <= address < end
        elif is_inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"{address:x} is in no memory of this process")
