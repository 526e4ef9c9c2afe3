"""What a call says of its rows, in every CUDA kernel: parameters, the number of the first, gradients of any size.

On the emulated GPU of test_cuda_emulation.py.
"""

import math
import shutil

import pytest
import torch
from cuda_emulator import SOFT, UNIT, Emulator, compare, compare_sample, inputs, library, parameters_of
from torch import Tensor

from discrete_ops import reference

DRAWING = tuple(name for name in reference.TERMS if "rao" in name or "cv" in name)
BAD = (0.0, -1.0, 1e-39, 1e39, math.inf, math.nan)

#: shape, K, multiprocessors, then what they are for: threads a row, draw groups of a drawing estimator, blocks a row
KINDS = {
    "a thread a row": ((1030, 10), 2, 1, (1, 1, 1)),
    "a team a row": ((6, 40), 1, 2, (16, 1, 1)),
    "several warps a row": ((6, 300), 1, 8, (128, 1, 1)),
    "teams that share draws": ((6, 12), 64, 2, (4, 64, 1)),
    "a block a long row": ((6, 8200), 1, 1, (None, None, 1)),
    "blocks that share a long row": ((2, 8193), 1, 8, (None, None, 3)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="NOT COVERED: no g++, the CUDA kernels' source is not run on the CPU"
)


@pytest.fixture
def emulator() -> Emulator:
    emulator = library()
    emulator.machine()
    return emulator


def estimators(kind: str) -> tuple[str, ...]:
    """Of rows that the emulator takes long for, one of each kernel and each use of a coefficient."""
    if "long" in kind:
        return ("straight_through", "gst", "reinmax_cv", "gumbel_rao")
    return DRAWING if "draws" in kind else tuple(reference.TERMS)


def start(emulator: Emulator, kind: str) -> tuple[tuple[int, int], int]:
    shape, k, multiprocessors, _ = KINDS[kind]
    emulator.machine(multiprocessors)
    return shape, k


def of_each_row(rows: int, estimator: str) -> Tensor:
    """Each row's own tau, coefficient and sample_tau."""
    tau, coefficient, sample_tau = parameters_of(estimator)
    place = torch.linspace(0.0, 1.0, rows, dtype=torch.float64)
    return torch.stack([tau + place, coefficient + place / 2, sample_tau + 0.5 - place], -1)


@every_kind
def test_the_kind_is_what_its_name_says(emulator: Emulator, kind: str) -> None:
    (shape, k), (team, groups, split) = start(emulator, kind), KINDS[kind][3]
    x, v, seed = inputs(shape, torch.float32)
    index = compare_sample(emulator, x, seed)
    emulator.surrogate_vjp(v, x, index, seed, UNIT, "gumbel_rao", k)
    launch = emulator.last_launch()
    assert launch.split == split
    if team is not None:
        assert (launch.team, launch.draw_groups) == (team, groups)


# ---------------------------------------------------------------------------------------------------
# Parameters


@every_kind
def test_parameters_of_each_row(emulator: Emulator, kind: str) -> None:
    """In float64 where its kernels are of that kind, too: temperatures other than 1 amplify float32 rounding."""
    shape, k = start(emulator, kind)
    x, v, seed = inputs(shape, torch.float32 if "long" in kind else torch.float64)
    for estimator in estimators(kind):
        parameters = of_each_row(shape[0], estimator)
        index = compare_sample(emulator, x, seed, parameters)
        if x.dtype == torch.float64:
            compare(emulator, x, v, seed, estimator, k, parameters)
        call = (x.float(), index, seed, parameters, estimator, k)
        got, want = emulator.surrogate_vjp(v.float(), *call), reference.surrogate_vjp(v.float(), *call)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=5e-6)


@every_kind
def test_parameters_as_numbers_as_one_group_and_as_equal_rows(emulator: Emulator, kind: str) -> None:
    """One result, to the bit where rows take the same path."""
    shape, k = start(emulator, kind)
    x, v, seed = inputs(shape, torch.float32)
    numbers = (0.7, 1.5, 1.3)
    one = torch.tensor([numbers], dtype=torch.float64)
    index = compare_sample(emulator, x, seed, numbers)
    for parameters in (one, one.expand(shape[0], 3)):
        assert torch.equal(emulator.sample(x, seed, parameters)[1], index)
    for estimator in ("gst", "gumbel_rao", "reinmax_cv"):
        want = emulator.surrogate_vjp(v, x, index, seed, numbers, estimator, k)
        for parameters in (one, one.expand(shape[0], 3)):
            assert torch.equal(emulator.surrogate_vjp(v, x, index, seed, parameters, estimator, k), want)


@pytest.mark.parametrize("columns", [10, 100, 1100])
def test_groups_of_seeds_and_parameters(emulator: Emulator, columns: int) -> None:
    x, v, _ = inputs((12, columns), torch.float64)
    seeds = torch.tensor([5, 2**62, 11])
    for estimator in reference.TERMS if columns < 1000 else ("gumbel_rao",):
        parameters = of_each_row(2, estimator)
        compare_sample(emulator, x, seeds, parameters)
        compare(emulator, x, v, seeds, estimator, 2, parameters)


@every_kind
@pytest.mark.parametrize("sample_tau", [0.3, 5.0])
def test_samples_at_another_temperature(emulator: Emulator, kind: str, sample_tau: float) -> None:
    shape, _ = start(emulator, kind)
    for dtype in (torch.float32, torch.bfloat16) if "long" in kind else (torch.float32, torch.float64, torch.float16):
        x, _, seed = inputs(shape, dtype)
        compare_sample(emulator, x, seed, (1.0, 0.0, sample_tau))


def test_a_hot_sample_knows_masks_from_huge_differences(emulator: Emulator) -> None:
    """Beyond float32's range a difference is no mask: at a temperature as high it has a share of the probability."""
    for shape in ((300, 10), (8, 300), (4, 8200)):
        x = torch.full(shape, -3e38)
        x[:, 0], x[:, 1::2] = 3e38, -torch.inf
        index = emulator.sample(x, torch.tensor([3]), (1.0, 0.0, 8e37))[1]
        assert index.max() > 0
        assert not (index % 2).any()


@every_kind
def test_a_bad_sample_tau_shows(emulator: Emulator, kind: str) -> None:
    shape, _ = start(emulator, kind)
    x, _, seed = inputs(shape, torch.float32)
    parameters = torch.tensor([UNIT], dtype=torch.float64).repeat(shape[0], 1)
    for bad in BAD:
        parameters[1, 2] = bad
        index = compare_sample(emulator, x, seed, parameters)
        assert index[1] == -1
        assert index[0] >= 0
        sample, index = emulator.sample(x, seed, (1.0, 0.0, bad))
        assert sample.isnan().all()
        assert (index == -1).all()


@pytest.mark.parametrize("columns", [10, 8200])
def test_a_bad_tau_shows(emulator: Emulator, columns: int) -> None:
    x, v, seed = inputs((2, columns), torch.float32)
    index = reference.sample(x, seed, UNIT)[1]
    parameters = torch.tensor([UNIT, UNIT], dtype=torch.float64)
    for bad in BAD:
        parameters[0, 0] = bad
        for estimator in SOFT:
            call = (x, index, seed, parameters, estimator, 1)
            for got in (emulator.surrogate_vjp(v, *call), emulator.surrogate(*call), emulator.tau_derivative(*call)):
                assert got[0].isnan().all()
                assert got[1].isfinite().all()
        assert emulator.surrogate_vjp(v, x, index, seed, (bad, 1.0, 1.0), "gst", 1).isnan().all()


# ---------------------------------------------------------------------------------------------------
# Rows that are a part of more


@every_kind
def test_rows_from_first_row_on_are_those_of_the_whole_call(emulator: Emulator, kind: str) -> None:
    shape, k = start(emulator, kind)
    x, v, seed = inputs(shape, torch.float64 if "long" not in kind else torch.float32)
    first = shape[0] // 2
    index = compare_sample(emulator, x, seed)
    assert torch.equal(emulator.sample(x[first:], seed, UNIT, first)[1], index[first:])
    for estimator in ("straight_through", "gumbel_rao", "reinmax_cv"):
        parameters = parameters_of(estimator)
        whole = emulator.surrogate_vjp(v, x, index, seed, parameters, estimator, k)[first:]
        part = emulator.surrogate_vjp(v[first:], x[first:], index[first:], seed, parameters, estimator, k, first)
        torch.testing.assert_close(part, whole)  # fewer rows, shared by more threads


@every_kind
def test_first_row_counts_in_each_group_of_a_seed(emulator: Emulator, kind: str) -> None:
    shape, k = start(emulator, kind)
    x, v, _ = inputs(shape, torch.float32)
    seeds, first_row = torch.tensor([7, 2**40]), 2**32 - 2  # its upper word changes among the rows
    compare_sample(emulator, x, seeds, first_row=first_row)
    for estimator in ("gumbel_rao", "reinmax_rao"):
        compare(emulator, x, v, seeds, estimator, k, first_row=first_row)


# ---------------------------------------------------------------------------------------------------
# Gradients up to the largest float


def test_a_gradient_as_large_as_a_float_stays_finite(emulator: Emulator) -> None:
    v = torch.tensor([3e38, -3e38, -3e38, -3e38])
    got = emulator.surrogate_vjp(v, torch.zeros(4), torch.tensor(0), torch.tensor([1]), UNIT, "straight_through", 1)
    torch.testing.assert_close(got, torch.tensor([1.125e38, -3.75e37, -3.75e37, -3.75e37]))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_near_the_largest_float(emulator: Emulator, kind: str, dtype: torch.dtype) -> None:
    """Also where a result is far smaller than what it is made of: an unlikely category, and one that is masked."""
    shape, k = start(emulator, kind)
    x, v, seed = inputs(shape, dtype)
    x[0] = 0
    x[1, 1], x[1, 2] = -60.0, -torch.inf
    v = torch.where(v > 0.5, 3e38, -3e38).to(dtype)
    for estimator in estimators(kind):
        parameters = parameters_of(estimator)
        index = reference.sample(x, seed, parameters)[1]
        call = (x, index, seed, parameters, estimator, k)
        got, want = emulator.surrogate_vjp(v, *call), reference.surrogate_vjp(v, *call)
        relative = 2.0**-7 if dtype == torch.bfloat16 else 2e-6
        torch.testing.assert_close(got.double(), want.double(), rtol=relative, atol=5e-7 * 3e38)
