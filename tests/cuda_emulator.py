"""The CUDA kernels' own source on an emulated GPU, and how its results are compared with the reference."""

import ctypes
import fcntl
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from draws import COEFFICIENT
from torch import Tensor
from torch.utils import cpp_extension

from discrete_ops import reference

HERE = Path(__file__).parent
CSRC = HERE.parent / "csrc"
SOFT = ("straight_through", "gumbel_rao", "gst", "gst_pi")
BINARY = reference.BINARY_NUMBER
NUMBER = reference.NUMBERS
UNIT = (1.0, 0.0, 1.0)  #: parameters at temperature 1

#: (relative, absolute) for every element, as in test_kernels.py.
TOLERANCE = {
    torch.float64: (1e-11, 1e-13),
    torch.float32: (2e-6, 1e-7),
    torch.float16: (2.0**-10, 1e-7),
    torch.bfloat16: (2.0**-7, 1e-7),
}
#: Absolute, but for float64. In reinmax_cv_gumbel control and mean cancel, MVE solves a system; -log p is several times
#: as large as v.
CANCELLING = {"reinmax_cv_gumbel": 5e-7, "mve": 1e-6}
OF_LOGARITHMS = 1e-6


class Launch(NamedTuple):
    blocks: int
    threads: int
    team: int  # threads a row
    draw_groups: int
    split: int  # blocks a row
    workspace_bytes: int  # of all blocks, in device memory


class Planned(NamedTuple):
    """What the host tells a GPU of a launch."""

    kernel: str  #: its name in the machine code
    parameter: bytes
    blocks: int
    threads: int
    shared_bytes: int  # a block
    workspace: tuple[int, int]  #: address and bytes


class Emulator:
    """``reference.py``'s functions on an emulated GPU of ``multiprocessors``, its threads run in a seed's order."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        torch.ops.load_library(str(path))
        self.ops = torch.ops.discrete_ops_emulation

    def machine(
        self, multiprocessors: int = 2, l2_bytes: int = 2**20, shared_bytes: int = 2**16, order: int = 0
    ) -> None:
        """``shared_bytes``: of a multiprocessor."""
        self.library.set_machine(multiprocessors, ctypes.c_int64(l2_bytes), ctypes.c_int64(shared_bytes), order)

    def last_launch(self) -> Launch:
        figures = (ctypes.c_int64 * 6)()
        self.library.last_launch(figures)
        return Launch(*figures)

    def planned(self, operator: Callable[..., Any], *call: object) -> tuple[Any, Planned]:
        """What an operator returns, without anything in it, and the launch that would fill it."""
        library, figures = self.library, (ctypes.c_int64 * 3)()
        library.last_kernel.restype = ctypes.c_char_p
        library.last_parameter.restype = library.last_workspace.restype = ctypes.c_void_p
        library.set_runs(False)
        try:
            result = operator(*call)
        finally:
            library.set_runs(True)
        parameter = ctypes.string_at(library.last_parameter(figures), figures[0])
        launch, workspace = self.last_launch(), (library.last_workspace(), figures[2])
        name = library.last_kernel().decode()
        return result, Planned(name, parameter, launch.blocks, launch.threads, figures[1], workspace)

    def sample(
        self, logits: Tensor, seed: Tensor, parameters: reference.Parameters, first_row: int = 0, binary: bool = False
    ) -> tuple[Tensor, Tensor]:
        given = (parameters, 1.0) if isinstance(parameters, Tensor) else (None, parameters[2])
        return self.ops.sample.of_rows(logits, seed, *given, first_row, BINARY if binary else 0)

    def surrogate(self, logits: Tensor, index: Tensor, *call: object) -> Tensor:
        return self.ops.surrogate(logits, index, *_raw(*call))

    def surrogate_vjp(self, v: Tensor, logits: Tensor, index: Tensor, *call: object) -> Tensor:
        return self.ops.surrogate_vjp(v, logits, index, *_raw(*call))

    def tau_derivative(self, logits: Tensor, index: Tensor, *call: object) -> Tensor:
        return self.ops.tau_derivative(logits, index, *_raw(*call))


def _raw(seed: Tensor, parameters: reference.Parameters, estimator: str, k: int, first_row: int = 0) -> tuple:
    given = (parameters, 1.0, 0.0) if isinstance(parameters, Tensor) else (None, *parameters[:2])
    return seed, *given, NUMBER[estimator], k, first_row


@functools.cache
def library() -> Emulator:
    return Emulator(built())


def built() -> Path:
    directory = HERE.parent / "build" / "cuda_emulation"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "libcuda_emulation.so"
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes share one build
        sources = [*CSRC.glob("*.h"), *CSRC.glob("cuda/*"), *HERE.glob("cuda_emulation.*"), Path(torch.__file__)]
        if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            unfinished = path.with_suffix(".new")
            flags = [
                "-std=c++17",
                "-O1",
                "-U_FORTIFY_SOURCE",
                "-fPIC",
                "-shared",
                "-DTORCH_TARGET_VERSION=0x020a000000000000",
            ]
            include = [f"-I{p}" for p in (CSRC, HERE, *cpp_extension.include_paths())]
            link = [*(f"-L{p}" for p in cpp_extension.library_paths()), "-ltorch", "-ltorch_cpu", "-lc10"]
            command = ["g++", *flags, *include, str(HERE / "cuda_emulation.cpp"), "-o", str(unfinished), *link]
            subprocess.run(command, check=True)
            os.replace(unfinished, path)
    return path


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    logits = (2 * torch.randn(shape, generator=generator)).to(dtype)
    v = torch.randn(shape, generator=generator).to(dtype)
    return logits, v, torch.randint(2**63 - 1, (1,), generator=generator)


def parameters_of(estimator: str, tau: float = 1.0) -> tuple[float, float, float]:
    return tau, COEFFICIENT.get(estimator, 0.0), 1.0


def close(got: Tensor, want: Tensor, at_least: float = 0.0) -> None:
    relative, absolute = TOLERANCE[got.dtype]
    if got.dtype != torch.float64:
        absolute = max(absolute, at_least)
    torch.testing.assert_close(got.double(), want.double(), rtol=relative, atol=absolute, equal_nan=True)


def compare_sample(
    emulator: Emulator,
    logits: Tensor,
    seed: Tensor,
    parameters: reference.Parameters = UNIT,
    first_row: int = 0,
    binary: bool = False,
) -> Tensor:
    sample, index = reference.sample(logits, seed, parameters, first_row, binary)
    got_sample, got_index = emulator.sample(logits, seed, parameters, first_row, binary)
    assert torch.equal(got_index, index)
    torch.testing.assert_close(got_sample, sample, rtol=0, atol=0, equal_nan=True)
    return index


def compare(
    emulator: Emulator,
    x: Tensor,
    v: Tensor,
    seed: Tensor,
    estimator: str,
    k: int,
    parameters: reference.Parameters | None = None,
    first_row: int = 0,
    at_least: float = 0.0,
) -> None:
    """All that the estimator has; at temperature 1 unless parameters say another."""
    if parameters is None:
        parameters = parameters_of(estimator)
    index = reference.sample(x, seed, parameters, first_row, reference.is_binary(estimator))[1]
    call = (x, index, seed, parameters, estimator, k, first_row)
    at_least = max(at_least, CANCELLING.get(reference.without_binary(estimator), 0.0))
    close(emulator.surrogate_vjp(v, *call), reference.surrogate_vjp(v, *call), at_least)
    if reference.without_binary(estimator) in SOFT:
        close(emulator.surrogate(*call), reference.surrogate(*call), at_least)
        close(emulator.tau_derivative(*call), reference.tau_derivative(*call), OF_LOGARITHMS)
