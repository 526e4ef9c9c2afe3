"""A backend's kernels against the reference, every one and every path, in one short process.

python -m bench.gpu_smoke {load,check,sanitized,profile} [--backend cuda] [--device cuda]

load: the library loads and serves one call. check: indices, gradients, soft samples and their derivatives in tau.
sanitized: every kernel once, for compute-sanitizer. profile: the kernels that a profiler should see.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, reference

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # no package: "tests" is a name that others take, too
from draws import COEFFICIENT, assert_same_draws

SOFT = ("straight_through", "gumbel_rao", "gst", "gst_pi")
UNIT = (1.0, 0.0, 1.0)  #: parameters at temperature 1
HOT = (1.0, 0.0, 1.7)  #: whose samples are drawn at another
FIRST_ROW = 2**32 - 2  #: rows that are a part of more
#: A row of: a thread, some lanes, a warp, several, a block (4096: in the commonest calls' kernel), a larger one; of
#: several blocks, of many.
SHAPES = (
    *((700, 10), (5, 33), (300, 64), (9, 100), (300, 200), (5, 1024), (3, 4093), (3, 4096)),
    *((3, 5000), (3, 9000), (2, 40000), (1, 128256)),
)
SMALL_SHAPES = ((5, 10), (37, 10), (3, 300), (2, 1024), (1, 4096), (2, 9000), (1, 40000))
#: Of more rows than there are multiprocessors, so that a block has a whole row in its memory, the largest that fits; or
#: most of one, and several; or a part of one.
FILLING_SHAPES = ((300, 9000), (300, 14336), (300, 32000), (300, 57344))
#: As tests/test_kernels.py: relative and absolute, element by element.
TOLERANCE = {
    torch.float32: (2e-6, 5e-7),
    torch.float64: (1e-11, 1e-13),
    torch.float16: (2.0**-10, 5e-7),
    torch.bfloat16: (2.0**-7, 5e-7),
}
OF_LOGARITHMS = 2e-6  #: absolute, but for float64: in the derivative -log p is several times as large as v


def layouts(shape: tuple[int, int], dtype: torch.dtype, device: str) -> Iterator[tuple[str, Tensor]]:
    """The same kind of rows in memory that takes the widest accesses, and in some that does not."""
    rows, columns = shape
    wide = torch.randn(rows, 2 * columns + 1, generator=torch.Generator().manual_seed(columns)).to(device, dtype)
    yield "contiguous", wide[:, :columns].contiguous()
    yield "unaligned", wide.flatten()[1 : 1 + rows * columns].view(rows, columns)
    yield "strided", wide[:, 1::2]


def estimators(layout: str) -> tuple[str, ...]:
    """All where the layout is the common one, else one of each kind of kernel."""
    return tuple(reference.TERMS) if layout == "contiguous" else ("gst", "gumbel_rao")


def excess(got: Tensor, want: Tensor, at_least: float = 0.0) -> float:
    """By how much the worst element misses its tolerance; negative or 0 where none does."""
    relative, absolute = TOLERANCE[got.dtype]
    if got.dtype != torch.float64:
        absolute = max(absolute, at_least)
    got, want = got.cpu().double(), want.double()
    return float(((got - want).abs() - absolute - relative * want.abs()).nan_to_num(torch.inf).max())


def check(kernels: ModuleType, device: str, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[str]:
    """What differs from the reference, by name."""
    failures, seed = list[str](), torch.tensor([11])
    for shape in shapes:
        for dtype in TOLERANCE:
            for layout, x in layouts(shape, dtype, device):
                case, logits = f"{shape[0]}x{shape[1]} {dtype} {layout}", x.cpu()
                v = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
                g, s = v.to(device), seed.to(device)
                try:
                    assert_same_draws(kernels.sample(x, s, HOT, FIRST_ROW)[1], logits, seed, HOT[2], FIRST_ROW)
                except AssertionError as error:
                    failures.append(f"sample at {HOT[2]} from row {FIRST_ROW} {case}: {error}")
                sample, drawn = kernels.sample(x, s, UNIT)
                try:
                    index = assert_same_draws(drawn, logits, seed)
                except AssertionError as error:
                    failures.append(f"sample {case}: {error}")
                    index = reference.sample(logits, seed, UNIT)[1]
                if not torch.equal(sample, torch.nn.functional.one_hot(drawn.clamp_min(0), shape[1]).to(dtype)):
                    failures.append(f"sample {case}: not the one-hot of its index")
                for estimator in estimators(layout):
                    spec = ((1.0, COEFFICIENT.get(estimator, 0.0), 1.0), estimator, 2)
                    call, want = (x, index.to(device), s, *spec), (logits, index, seed, *spec)
                    pulled = excess(kernels.surrogate_vjp(g, *call), reference.surrogate_vjp(v, *want))
                    missed = {"pull-back": pulled}
                    if estimator in SOFT:
                        missed["soft"] = excess(kernels.surrogate(*call), reference.surrogate(*want))
                        derivatives = kernels.tau_derivative(*call), reference.tau_derivative(*want)
                        missed["derivative in tau"] = excess(*derivatives, OF_LOGARITHMS)
                    failures += [
                        f"{what} {estimator} {case}: beyond its tolerance by {by:.1e}"
                        for what, by in missed.items()
                        if by > 0
                    ]
    return failures


def check_filling(kernels: ModuleType, device: str) -> list[str]:
    """Likewise, of some rows."""
    failures, seed = list[str](), torch.tensor([11])
    for shape in FILLING_SHAPES:
        x, v = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
        on_device = x.to(device)
        index = kernels.sample(on_device, seed.to(device), UNIT)[1]
        rows = {row: slice(row, row + 1) for row in (0, 1, shape[0] // 2, shape[0] - 1)}
        for row, at in rows.items():
            try:
                assert_same_draws(index[at], x[at], seed, 1.0, row)
            except AssertionError as error:
                failures.append(f"sample {shape[0]}x{shape[1]}, row {row}: {error}")
        for estimator in ("straight_through", "gumbel_rao"):
            spec = (UNIT, estimator, 2)
            got = kernels.surrogate_vjp(v.to(device), on_device, index, seed.to(device), *spec)
            for row, at in rows.items():
                by = excess(got[at], reference.surrogate_vjp(v[at], x[at], index[at].cpu(), seed, *spec, row))
                if by > 0:
                    failures.append(f"{estimator} {shape[0]}x{shape[1]}, row {row}: beyond its tolerance by {by:.1e}")
    return failures


def sanitized(kernels: ModuleType, device: str) -> None:
    seed = torch.tensor([1], device=device)
    for shape in SMALL_SHAPES:
        for dtype in TOLERANCE:
            for layout, x in layouts(shape, dtype, device):
                index = kernels.sample(x, seed, UNIT)[1]
                for estimator in estimators(layout):
                    call = (x, index, seed, (1.0, 1.0, 1.0), estimator, 3)
                    kernels.surrogate_vjp(x, *call)
                    if estimator in SOFT:
                        kernels.surrogate(*call)
                        kernels.tau_derivative(*call)


def profile(kernels: ModuleType, device: str) -> None:
    """Sample, STGS's pull-back, and Gumbel-Rao's with many draws."""
    seed = torch.tensor([1], device=device)
    for shape, draws in (((2**20, 64), 1), ((3000, 10), 1000)):
        x = torch.randn(shape if device != "cpu" else (8, shape[1]), device=device)
        index = kernels.sample(x, seed, UNIT)[1]
        kernels.surrogate_vjp(x, x, index, seed, UNIT, "gumbel_rao", draws)


def load(kernels: ModuleType, device: str) -> None:
    kernels.sample(torch.zeros(3, 10, device=device), torch.tensor([1], device=device), UNIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "check", "sanitized", "profile"))
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.backend not in do.available_backends():
        missing = do.build_info()["missing"]
        assert isinstance(missing, dict)
        raise SystemExit(f"{options.backend} is not available: {missing.get(options.backend, 'no reason given')}")
    kernels = backends.get(options.backend)
    if options.what == "check":
        failures = check(kernels, options.device) + check_filling(kernels, options.device)
        if failures:
            raise SystemExit("\n".join([*failures, f"{len(failures)} cases are wrong, the first: {failures[0]}"]))
    else:
        {"load": load, "sanitized": sanitized, "profile": profile}[options.what](kernels, options.device)
    if options.device != "cpu":
        torch.cuda.synchronize()
    print(f"{options.what}: {options.backend} runs with torch {torch.__version__}")


if __name__ == "__main__":
    main()
