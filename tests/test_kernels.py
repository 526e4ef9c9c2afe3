"""Compiled backends against the reference on the same seed: same indices, same gradients, any memory layout."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from draws import COEFFICIENT, ESTIMATORS, assert_same_draws
from helpers import TARGETS
from torch import Tensor

from discrete_ops import backends, philox, reference

every_target = pytest.mark.parametrize("target", TARGETS, ids="-".join)
on_cpp = pytest.mark.skipif(("cpp", "cpu") not in TARGETS, reason="NOT COVERED: the cpp backend is not installed")

if not TARGETS:
    # Without a compiled backend there is nothing to compare; say so instead of skipping in silence.
    pytest.skip("NOT COVERED: no compiled backend is installed, kernels are not compared", allow_module_level=True)

Target = tuple[str, str]


#: (relative, absolute) for every element of a gradient or soft sample; the reference computes in float64.
TOLERANCE = {
    torch.float64: (1e-11, 1e-13),
    torch.float32: (2e-6, 1e-7),
    torch.float16: (2.0**-10, 1e-7),  # a float32 result rounded once: half an ulp, or a whole one at a tie
    torch.bfloat16: (2.0**-7, 1e-7),
}
SOFT = reference.WITH_SOFT_SAMPLE
#: Its control and the mean of its draws cancel: what is left of terms of size eta is rounded as they are. The
#: derivative in tau is made of logarithms up to 88 / tau, whose differences are left: 88 * 2**-24. MVE solves a system
#: to a part in ten million of what the row's gradient is.
CANCELLING = {"reinmax_cv_gumbel": 5e-7, "tau_derivative": 6e-6, "mve": 1e-6}

SHAPES = [
    (1, 1),  # a single category
    (3, 2),  # less than a SIMD register
    (3000, 10),  # the shape of GST's VAE
    (1600, 12),  # 8 latents of 16x12, a row that fills three blocks of noise
    (7, 64),  # the longest short row
    (7, 65),  # the shortest long row
    (300, 200),  # several teams of several warps in a block of a GPU
    (64, 8192),  # several chunks a row
    (2, 128256),  # a language model's vocabulary; rows fewer than threads
    (0, 10),  # an empty batch
]
#: Triton's interpreter takes tens of milliseconds a program: fewer rows, as many columns as split a row; half types,
#: which differ from float32 in what is loaded and stored, in a short row and a padded one alone.
INTERPRETED = {
    (3000, 10): (40, 10),
    (1600, 12): (24, 12),
    (300, 200): (2, 200),
    (64, 8192): (1, 8192),
    (2, 128256): (1, 16500),
    (40, 10): (12, 10),
    (6, 300): (3, 300),
}


def close(got: Tensor, want: Tensor, estimator: str) -> None:
    relative, absolute = TOLERANCE[got.dtype]
    absolute = max(absolute, CANCELLING.get(estimator, 0.0) if got.dtype != torch.float64 else 0.0)
    torch.testing.assert_close(got.double(), want.double(), rtol=relative, atol=absolute, equal_nan=True)


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    logits = (2 * torch.randn(shape, generator=generator)).to(dtype)
    v = torch.randn(shape, generator=generator).to(dtype)
    return logits, v, torch.randint(2**63 - 1, (1,), generator=generator)


def compare(
    target: Target, logits: Tensor, v: Tensor, seed: Tensor, estimator: str, tau: float | Tensor, k: int
) -> None:
    name, device = target
    kernels = backends.get(name)
    got_sample, got_index = kernels.sample(_to(logits, device), _to(seed, device))
    index = assert_same_draws(got_index, logits, seed)
    parameters = of(tau, COEFFICIENT.get(estimator, 0.0))
    there = [_to(x, device) for x in (logits, v, index, seed, parameters)]
    same = got_index.cpu() == index
    sample = reference.sample(logits, seed)[0]
    torch.testing.assert_close(got_sample.cpu()[same], sample[same], rtol=0, atol=0, equal_nan=True)
    want = reference.surrogate_vjp(v, logits, index, seed, parameters, estimator, k)
    close(kernels.surrogate_vjp(there[1], there[0], *there[2:], estimator, k).cpu(), want, estimator)
    if estimator in SOFT:
        for function in ("surrogate", "tau_derivative"):
            want = getattr(reference, function)(logits, index, seed, parameters, estimator, k)
            got = getattr(kernels, function)(there[0], *there[2:], estimator, k).cpu()
            close(got, want, function if function in CANCELLING else estimator)


def of(tau: float | Tensor, coefficient: float = 0.0) -> tuple[float, float, float] | Tensor:
    """Parameters, of all rows or of T groups."""
    if not isinstance(tau, Tensor):
        return tau, coefficient, 1.0
    columns = (tau.double(), torch.full(tau.shape, coefficient).double(), torch.ones(tau.shape).double())
    return torch.stack(columns, -1)


def _to(x: Any, device: str) -> Any:
    """The same values in the same memory layout."""
    if not isinstance(x, Tensor) or device == "cpu":
        return x
    storage = torch.empty(0, dtype=x.dtype, device=device).set_(x.untyped_storage().to(device=device))
    return storage.as_strided(x.shape, x.stride(), x.storage_offset())


IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HALF_INTERPRETED = ((3, 2), (7, 65))
#: Long rows in float64 are test_triton's where it is interpreted.
SHAPES_AND_DTYPES = [
    (shape, dtype)
    for shape in SHAPES
    for dtype in TOLERANCE
    if not IS_INTERPRETED
    or (dtype == torch.float32 or shape != (2, 128256) if dtype.itemsize > 2 else shape in HALF_INTERPRETED)
]
SHAPES_OF_PARAMETERS = [(40, 10), (6, 300), *(() if IS_INTERPRETED else ((2, 20000),))]


@every_target
@pytest.mark.parametrize(("shape", "dtype"), SHAPES_AND_DTYPES, ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_agrees_with_the_reference(target: Target, estimator: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits, v, seed = inputs(INTERPRETED.get(shape, shape) if target == ("triton", "cpu") else shape, dtype)
    compare(target, logits, v, seed, estimator, tau=1.0, k=3)
    few = 10**4 if IS_INTERPRETED else 10**5
    if dtype == torch.float64 and logits.numel() < few:  # other temperatures amplify float32 rounding
        compare(target, logits, v, seed, estimator, tau=0.4, k=5)


@every_target
@pytest.mark.parametrize("shape", SHAPES_OF_PARAMETERS, ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_of_each_row_of_a_part_of_the_rows(target: Target, estimator: str, shape: tuple[int, int]) -> None:
    """A tau, coefficient and sample_tau for every row, of rows whose numbers pass 2**32."""
    name, device = target
    shape = INTERPRETED[shape] if target == ("triton", "cpu") else shape
    logits, v, seed = inputs(shape, torch.float64)
    first_row = 2**32 - 1
    parameters = torch.linspace(0.4, 1.9, 3 * shape[0], dtype=torch.float64).view(3, -1).t()
    sample, index = reference.sample(logits, seed, parameters, first_row)
    there = [_to(x, device) for x in (v, logits, index, seed, parameters.contiguous())]
    kernels = backends.get(name)
    got_sample, got_index = kernels.sample(there[1], *there[3:], first_row)
    assert torch.equal(got_index.cpu(), index)
    assert torch.equal(got_sample.cpu(), sample)
    for function in ("surrogate_vjp", *(("surrogate", "tau_derivative") if estimator in SOFT else ())):
        first = 0 if function == "surrogate_vjp" else 1
        got = getattr(kernels, function)(*there[first:], estimator, 3, first_row)
        want = getattr(reference, function)(*(v, logits, index, seed, parameters)[first:], estimator, 3, first_row)
        close(got.cpu(), want, estimator)


@every_target
@pytest.mark.parametrize("columns", [10, 300])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_layouts_masks_and_bad_rows(target: Target, estimator: str, columns: int) -> None:
    rows, columns = ((4, 2), min(columns, 90)) if target == ("triton", "cpu") else ((6, 5), columns)
    wide, v_wide, seed = inputs((*rows, 2 * columns), torch.float32)
    layouts = {
        "every second column": wide[..., ::2],
        "part of a row": wide[..., 3 : 3 + columns],
        "rows swapped": wide[..., :columns].transpose(0, 1),
        "categories first": wide[..., :columns].permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "expanded": wide[:1, :, :columns].expand(*rows, columns),
        "offset": wide.flatten()[7 : 7 + 4 * columns].view(2, 2, columns),
    }
    for layout, logits in layouts.items():
        v = torch.randn((*logits.shape, 2), generator=torch.Generator().manual_seed(1))[..., 0]  # strided too
        try:
            compare(target, logits, v, seed, estimator, tau=1.0, k=2)
        except AssertionError as error:
            raise AssertionError(layout) from error
    masked = wide[..., :columns].clone()
    masked[0, :, ::3] = -torch.inf  # some categories
    masked[1, 0] = -torch.inf  # all of them
    masked[1, 1, 1:] = -torch.inf  # all but one
    masked[2, 0, 4], masked[2, 1, 5] = torch.nan, torch.inf
    masked[3, 0] = 1e4 * masked[3, 0].sign()
    v = v_wide[..., :columns].clone()
    v[0, :, ::3] = torch.inf  # an upstream gradient where nothing can be sampled
    compare(target, masked, v, seed, estimator, tau=1.0, k=2)


@every_target
@pytest.mark.parametrize("shape", [(12, 10), (12, 100)], ids=str)
def test_groups_of_seeds_and_temperatures(target: Target, shape: tuple[int, int]) -> None:
    logits, v, _ = inputs(shape, torch.float64)
    seeds, taus = torch.tensor([5, 2**62, 11]), torch.tensor([0.5, 1.0], dtype=torch.float64)
    for estimator in ESTIMATORS:
        compare(target, logits, v, seeds, estimator, taus, k=2)


@on_cpp
@pytest.mark.parametrize("shape", [(4097, 10), (3, 40000), (1, 200000)], ids=str)
def test_bits_do_not_depend_on_threads(shape: tuple[int, int]) -> None:
    logits, v, seed = inputs(shape, torch.float32)
    kernels, before = backends.get("cpp"), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sample, index = kernels.sample(logits, seed)
            pulled = kernels.surrogate_vjp(v, logits, index, seed, of(0.7), "gumbel_rao", 3)
            results.append((sample, index, pulled))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@on_cpp
def test_memory_does_not_depend_on_the_number_of_draws() -> None:
    """Peak memory of a process that takes K draws of 256 KiB each: materialised, K = 1000 would take 256 MiB."""
    script = (
        "import resource, sys, torch, discrete_ops as do\n"
        "do.set_backend('cpp')\n"
        "x = torch.randn(64, 1024, requires_grad=True)\n"
        "do.gumbel_rao(x, 1.0, int(sys.argv[1])).backward(torch.randn(64, 1024))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peak = [
        int(subprocess.run([sys.executable, "-c", script, k], check=True, capture_output=True, text=True).stdout)
        for k in ("1", "100", "1000")
    ]
    assert max(peak) - min(peak) < 16 * 1024, peak  # KiB; two runs of one process differ by a few MiB


@on_cpp
def test_default_on_cpu() -> None:
    assert backends.resolve(None, "cpu") == "cpp"


@on_cpp
def test_operators_pass_opcheck() -> None:
    logits, v, seed = inputs((5, 7), torch.float32)
    ops = torch.ops.discrete_ops_kernels
    index = ops.sample(logits, seed)[1]
    for parameters in (None, of(torch.tensor([0.5]), 1.0)):
        torch.library.opcheck(ops.sample.of_rows, (logits, seed, parameters, 0.5, 0))
        for estimator, number in ((e, n) for e, n in reference.NUMBERS.items() if not reference.is_binary(e)):
            call = (logits, index, seed, parameters, 0.5, 1.0, number, 3)
            if estimator in SOFT:
                torch.library.opcheck(ops.surrogate.default, call)
                torch.library.opcheck(ops.tau_derivative.default, call)
            torch.library.opcheck(ops.surrogate_vjp.default, (v, *call))


@on_cpp
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("logits", lambda o, x, i, s: o.surrogate(x.long(), i, s, None, 1.0, 0.0, 0, 1)),
        ("seed", lambda o, x, i, s: o.surrogate(x, i, torch.tensor([1, 2]), None, 1.0, 0.0, 0, 1)),
        ("seed", lambda o, x, i, s: o.sample(x, s.int())),
        ("first_row", lambda o, x, i, s: o.sample.of_rows(x, s, None, 1.0, -1)),
        ("index", lambda o, x, i, s: o.surrogate(x, i + 7, s, None, 1.0, 0.0, 0, 1)),
        ("index", lambda o, x, i, s: o.surrogate(x, i[:2], s, None, 1.0, 0.0, 0, 1)),
        ("parameters", lambda o, x, i, s: o.surrogate(x, i, s, torch.ones(2, 3).double(), 1.0, 0.0, 0, 1)),
        ("parameters", lambda o, x, i, s: o.sample.of_rows(x, s, torch.ones(1, 2).double(), 1.0, 0)),
        ("parameters", lambda o, x, i, s: o.sample.of_rows(x, s, torch.ones(1, 3), 1.0, 0)),
        ("estimator", lambda o, x, i, s: o.surrogate(x, i, s, None, 1.0, 0.0, 99, 1)),
        ("estimator", lambda o, x, i, s: o.surrogate(x, i, s, None, 1.0, 0.0, 4, 1)),
        ("estimator", lambda o, x, i, s: o.surrogate(x, i, s, None, 1.0, 0.0, 256, 1)),
        ("estimator", lambda o, x, i, s: o.surrogate(x, i, s, None, 1.0, 0.0, -1, 1)),
        ("num_samples", lambda o, x, i, s: o.surrogate(x, i, s, None, 1.0, 0.0, 1, 0)),
        ("grad", lambda o, x, i, s: o.surrogate_vjp(x[:2], x, i, s, None, 1.0, 0.0, 0, 1)),
    ],
)
def test_raw_operators_check_what_they_read(argument: str, call: object) -> None:
    logits, _, seed = inputs((3, 7), torch.float32)
    index = torch.ops.discrete_ops_kernels.sample(logits, seed)[1]
    with pytest.raises(RuntimeError, match=f"{argument}: "):
        call(torch.ops.discrete_ops_kernels, logits, index, seed)  # type: ignore[operator]


SUBPROCESS_PARITY = """
import torch
from discrete_ops import backends, cpp, reference
from discrete_ops.reference import NUMBERS
if cpp.instruction_set() != NAME:
    print("unsupported here:", NAME)
    raise SystemExit
seed = torch.tensor([77])
for shape in ((37, 11), (3, 1000)):
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
        logits, v = (torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype) for i in (1, 2))
        index = reference.sample(logits, seed)[1]
        assert torch.equal(cpp.sample(logits, seed)[1], index)
        for estimator in (e for e in NUMBERS if not reference.is_binary(e)):
            call = (v, logits, index, seed, (1.0, 1.0, 1.0), estimator, 2)
            got, want = cpp.surrogate_vjp(*call), reference.surrogate_vjp(*call)
            torch.testing.assert_close(got, want, rtol=tolerance, atol=5e-7)
print("agrees:", NAME)
"""


@on_cpp
def test_every_instruction_set_of_this_machine() -> None:
    names = ("avx512", "avx2", "baseline") if os.uname().machine == "x86_64" else ("neon",)
    said = [
        subprocess.run(
            [sys.executable, "-c", f"NAME = {name!r}\n{SUBPROCESS_PARITY}"],
            env={**os.environ, "DISCRETE_OPS_CPU": name},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for name in names
    ]
    assert f"agrees: {names[-1]}" in said  # the least one runs everywhere
    assert all(line.startswith(("agrees:", "unsupported here:")) for line in said)


def test_a_tie_is_one_only_where_a_boundary_is_near_the_uniform() -> None:
    seed = torch.tensor([5])
    logits = torch.zeros(4, 6)
    index = reference.sample(logits, seed)[1]
    assert torch.equal(assert_same_draws(index, logits, seed), index)
    with pytest.raises(AssertionError, match="no tie"):
        assert_same_draws((index + 1) % 6, logits, seed)
    uniform = float(philox.uniform(seed, 1)[0])
    tie = torch.tensor([[uniform / (1 - uniform), 1.0]], dtype=torch.float64).log().float()  # the boundary is there
    for drawn in (0, 1):
        assert_same_draws(torch.tensor([drawn]), tie, seed)
