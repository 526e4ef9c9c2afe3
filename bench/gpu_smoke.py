"""A backend's kernels against the reference, every one and every path, in one short process.

python -m bench.gpu_smoke {load,check,sanitized,profile} [--backend cuda] [--device cuda]

load: the library loads and serves one call. check: indices and gradients. sanitized: every kernel once, for
compute-sanitizer. profile: the three kernels that a profiler should see.
"""

import argparse
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

import discrete_ops as do
from discrete_ops import backends, reference

COEFFICIENT = {"gst": 1.0, "reinmax_cv": 1.5, "reinmax_cv_gumbel": 1.5, "reinmax_rk2": 0.3}
SOFT = ("gumbel_rao", "gst", "gst_pi")
#: A row of each: a thread's, a team's of some lanes, of one warp, of several; a block's; long; shared by blocks.
SHAPES = [(700, 10), (5, 33), (300, 64), (9, 100), (300, 200), (5, 1024), (3, 4093), (3, 5000), (2, 40000), (1, 128256)]
#: As tests/test_kernels.py: relative and absolute, element by element.
TOLERANCE = {
    torch.float32: (2e-6, 5e-7),
    torch.float64: (1e-11, 1e-13),
    torch.float16: (2.0**-10, 5e-7),
    torch.bfloat16: (2.0**-7, 5e-7),
}


def layouts(shape: tuple[int, int], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    rows, columns = shape
    wide = torch.randn(rows, columns + 3, generator=torch.Generator().manual_seed(columns)).to(dtype)
    yield "contiguous", wide[:, :columns].contiguous()
    yield "unaligned", wide.flatten()[1 : 1 + rows * columns].view(rows, columns)
    yield "strided", wide[:, 1 : columns + 1]


def there(x: Tensor, device: str) -> Tensor:
    """The same values in the same memory layout."""
    storage = torch.empty(0, dtype=x.dtype, device=device).set_(x.untyped_storage().to(device=device))
    return storage.as_strided(x.shape, x.stride(), x.storage_offset())


def check(kernels: ModuleType, device: str) -> list[str]:
    """What differs from the reference, by name."""
    failures = []
    seed = torch.tensor([11])
    for shape in SHAPES:
        for dtype, (relative, absolute) in TOLERANCE.items():
            for layout, logits in layouts(shape, dtype):
                if shape[1] > 4096 and layout == "strided":
                    continue
                case = f"{shape[0]}x{shape[1]} {dtype} {layout}"
                v = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
                x, g, s = there(logits, device), v.to(device), seed.to(device)
                index = reference.sample(logits, seed)[1]
                differ = int((kernels.sample(x, s)[1].cpu() != index).sum())
                if differ > (0 if shape[1] < 4096 else 1):  # a tie may fall the other way in a long row
                    failures.append(f"sample {case}: {differ} indices differ")
                chosen = reference.TERMS if layout == "contiguous" else ("gumbel_rao", "reinmax")
                for estimator in chosen:
                    spec = (1.0, estimator, COEFFICIENT.get(estimator, 0.0), 2)
                    pulled = [
                        (
                            "pull-back",
                            kernels.surrogate_vjp(g, x, index.to(device), s, *spec),
                            reference.surrogate_vjp(v, logits, index, seed, *spec),
                        )
                    ]
                    if estimator in SOFT:
                        pulled.append(
                            (
                                "soft",
                                kernels.surrogate(x, index.to(device), s, *spec),
                                reference.surrogate(logits, index, seed, *spec),
                            )
                        )
                    for what, got, want in pulled:
                        excess = (got.cpu().double() - want.double()).abs() - absolute - relative * want.double().abs()
                        if not bool((excess <= 0).all()):  # NaN fails, too
                            failures.append(
                                f"{what} {estimator} {case}: beyond its tolerance by {float(excess.max()):.1e}"
                            )
    return failures


def sanitized(kernels: ModuleType, device: str) -> None:
    seed = torch.tensor([1], device=device)
    for shape in ((5, 10), (37, 10), (3, 300), (2, 1024), (2, 5000), (1, 40000)):
        for dtype in TOLERANCE:
            for layout, logits in layouts(shape, dtype):
                x, v = there(logits, device), torch.ones(shape, dtype=dtype, device=device)
                index = kernels.sample(x, seed)[1]
                for estimator in reference.TERMS if layout == "contiguous" else ("gst", "gumbel_rao"):
                    spec = (1.0, estimator, 1.0, 3)
                    kernels.surrogate_vjp(v, x, index, seed, *spec)
                    if estimator in SOFT:
                        kernels.surrogate(x, index, seed, *spec)


def profile(kernels: ModuleType, device: str) -> None:
    for shape, draws in (((2**20, 64), 1), ((3000, 10), 1000)):
        x = torch.randn(shape, device=device)
        seed = torch.tensor([1], device=device)
        index = kernels.sample(x, seed)[1]
        kernels.surrogate_vjp(x, x, index, seed, 1.0, "gumbel_rao", 0.0, draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "check", "sanitized", "profile"))
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.backend not in do.available_backends():
        missing = do.build_info()["missing"]
        assert isinstance(missing, dict)
        raise SystemExit(f"{options.backend} is not available: {missing.get(options.backend, 'unknown')}")
    kernels = backends.get(options.backend)
    torch.manual_seed(0)
    if options.what == "check":
        failures = check(kernels, options.device)
        print("\n".join(failures))
        raise SystemExit(f"{len(failures)} cases are wrong, the first: {failures[0]}" if failures else 0)
    if options.what == "load":
        kernels.sample(torch.zeros(3, 10, device=options.device), torch.tensor([1], device=options.device))
    else:
        {"sanitized": sanitized, "profile": profile}[options.what](kernels, options.device)
    if options.device != "cpu":
        torch.cuda.synchronize()
    print(f"{options.backend} runs with torch {torch.__version__}")


if __name__ == "__main__":
    main()
