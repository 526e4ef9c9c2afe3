"""The CUDA kernels without a GPU: their own source, compiled for the CPU, each GPU thread a fibre (cuda_emulation.h).

Everything but the machine instructions is what nvcc compiles: which threads take which columns, the order of every sum,
the barriers, the branches, the strides. Each case says which kernel and which split of the work it is for.
"""

import ctypes
import re
import shutil
from collections.abc import Callable

import pytest
import torch
from cuda_emulator import TOLERANCE, UNIT, Emulator, compare, compare_sample, inputs, library, parameters_of
from draws import ESTIMATORS

from discrete_ops import reference

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="NOT COVERED: no g++, the CUDA kernels' source is not run on the CPU"
)


@pytest.fixture
def emulator() -> Emulator:
    emulator = library()
    emulator.machine()
    return emulator


def kernel_of(operator: Callable[..., object], *call: object) -> str:
    """The template that a call's kernel is an instance of, and of which rows, if it is of the commonest calls."""
    name = library().planned(operator, *call)[1].kernel
    template, rows = re.search(r"\d((?:sample|surrogate)_[a-z]+)I(?:NS0_9([A-Z][a-z]+Rows))?", name).groups()
    return template if rows is None else f"{template} of {rows}"


def test_exponential_noise_to_2_ulp(emulator: Emulator) -> None:
    """The polynomial, and where it meets the logarithm; a GPU's own logarithm adds 2**-22 at most."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([0, 1, 2, 2**31 - 2**7, 2**31 - 1, 2**31, 2**31 + 2**8, 2**32 - 2**9, 2**32 - 2, 2**32 - 1])
    small = torch.randint(2**20, (10**5,), generator=generator)
    words = torch.cat([ends, small, torch.randint(2**32, (10**6,), generator=generator)])
    noise, raw = torch.empty(len(words)), words.to(torch.uint32)
    emulator.library.exponentials(*(ctypes.c_void_p(x.data_ptr()) for x in (raw, noise)), ctypes.c_int64(len(words)))
    u = ((words.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24).double()
    assert float((noise.double() / -torch.log1p(-u) - 1).abs().max()) < 2.0**-22


# ---------------------------------------------------------------------------------------------------
# Rows in registers


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("shape", "multiprocessors", "team"),
    [
        ((1, 1), 1, 1),  # a single category
        ((3, 2), 1, 1),
        ((1300, 10), 1, 1),  # a device filled: a thread a row, accesses of two elements
        ((37, 10), 8, 4),  # a device not filled: a thread a quad
        ((6, 32), 8, 8),  # whole quads: accesses of four
        ((5, 100), 8, 32),  # a warp a row, the last quads missing
        ((3, 301), 8, 128),  # several warps, single elements
        ((2, 1024), 1, 256),  # a block a row
    ],
    ids=str,
)
def test_rows_in_registers(
    emulator: Emulator, shape: tuple[int, int], multiprocessors: int, team: int, dtype: torch.dtype
) -> None:
    emulator.machine(multiprocessors)
    x, v, seed = inputs(shape, dtype)
    index = compare_sample(emulator, x, seed)
    emulator.surrogate_vjp(v, x, index, seed, UNIT, "gst", 1)
    if dtype == torch.float32:
        assert emulator.last_launch()[2:5] == (team, 1, 1)
    for estimator in ESTIMATORS:
        compare(emulator, x, v, seed, estimator, k=3)
        if dtype == torch.float64:  # other temperatures amplify float32 rounding
            compare(emulator, x, v, seed, estimator, k=2, parameters=parameters_of(estimator, tau=0.4))


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        *(((1100, columns), "ShortRows") for columns in (2, 7, 10, 16)),
        *((shape, "WholeRows") for shape in ((1100, 32), (1100, 64), (150, 128), (80, 512), (80, 1024), (1, 8192))),
    ],
    ids=str,
)
def test_the_commonest_calls_have_kernels_of_their_own(emulator: Emulator, shape: tuple[int, int], rows: str) -> None:
    """Whose source gives the same, to the bit, as that of the general ones, which serve such rows that lie apart.

    In machine code products may be fused otherwise.
    """
    emulator.machine(1)
    x, v, seed = inputs(shape, torch.float32)
    if shape[0] > 1:  # masks, and rows without a sample
        x[1, 1:], v[1, 1] = -torch.inf, torch.nan
        x[2] = -torch.inf
        x[3, 1] = torch.nan
        x[4, 0], x[4, 1] = 3e38, -3e38
    apart = torch.stack((x, x), 2)[..., 0]
    index = compare_sample(emulator, x, seed)
    assert kernel_of(emulator.sample, x, seed, UNIT) == f"sample_usual of {rows}"
    assert kernel_of(emulator.sample, apart, seed, UNIT) == "sample_registers"
    assert torch.equal(emulator.sample(apart, seed, UNIT)[1], index)
    for estimator in sorted({*ESTIMATORS} - {"mve"}):
        compare(emulator, x, v, seed, estimator, k=2)
        call = (seed, (0.7, 1.5, 1.0), estimator, 2)
        assert kernel_of(emulator.surrogate_vjp, v, x, index, *call) == f"surrogate_usual of {rows}"
        assert kernel_of(emulator.surrogate_vjp, v, apart, index, *call) == "surrogate_registers"
        got, want = (emulator.surrogate_vjp(v, logits, index, *call) for logits in (x, apart))
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_other_calls_have_the_general_kernels(emulator: Emulator) -> None:
    emulator.machine(1)
    table = torch.tensor([UNIT] * 2, dtype=torch.float64)
    for columns in (10, 64):
        x, v, seed = inputs((1200, columns), torch.float32)
        index = emulator.sample(x, seed, UNIT)[1]
        moved, beside = torch.empty(x.numel() + 1)[1:].view_as(x), torch.empty(1200, columns + 1)[:, :columns]
        for logits, grad, seeds, parameters in [
            (x.half(), v.half(), seed, UNIT),
            (x, v[:1].expand_as(v), seed, UNIT),
            (x, v, torch.tensor([1, 2]), UNIT),
            (x, v, seed, table),
            (x, moved.copy_(v), seed, UNIT),
            (beside.copy_(x), v, seed, UNIT),
        ]:
            compare(emulator, logits, grad, seeds, "gst", k=1, parameters=parameters)
            call = (grad, logits, index, seeds, parameters, "straight_through", 1)
            assert kernel_of(emulator.surrogate_vjp, *call) == "surrogate_registers"


@pytest.mark.parametrize("most_threads", [512, 256])
def test_longest_row_in_registers(emulator: Emulator, most_threads: int) -> None:
    """With draws, where the device has the registers for so many threads."""
    x, v, seed = inputs((1, 8190), torch.float32)
    compare_sample(emulator, x, seed)
    assert emulator.last_launch() == (1, 512, 512, 1, 1, 0)
    in_registers = ("straight_through", "gst_pi", "reinmax_argmax")
    in_registers += ("gumbel_rao", "reinmax_cv") if most_threads == 512 else ()
    emulator.library.set_most_threads(most_threads)
    try:
        for estimator in in_registers:
            compare(emulator, x, v, seed, estimator, k=2)
            assert emulator.last_launch() == (1, 512, 512, 1, 1, 0)
        for columns in (4093, 4097):
            x, v, seed = inputs((1, columns), torch.float32)
            compare(emulator, x, v, seed, "gumbel_rao", k=2)
            in_one = most_threads == 512 or columns == 4093
            assert emulator.last_launch().blocks == (1 if in_one else 2)
        kernel = kernel_of(emulator.sample, inputs((1, 8192), torch.float32)[0], seed, UNIT)
        assert kernel == ("sample_usual of WholeRows" if most_threads == 512 else "sample_registers")
    finally:
        emulator.library.set_most_threads(512)


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if "rao" in name or "cv" in name])
@pytest.mark.parametrize(
    ("shape", "k", "team", "groups"), [((9, 10), 70, 4, 64), ((2, 100), 21, 16, 16), ((1, 900), 7, 64, 4)], ids=str
)
def test_draws_are_shared_by_teams(
    emulator: Emulator, shape: tuple[int, int], k: int, team: int, groups: int, estimator: str
) -> None:
    """K no multiple of the groups; the order of the sums, so each bit, is the same however threads run."""
    x, v, seed = inputs(shape, torch.float32)
    compare(emulator, x, v, seed, estimator, k=k)
    index = reference.sample(x, seed, UNIT)[1]
    results = []
    for order in range(3):
        emulator.machine(2, order=order)
        results.append(emulator.surrogate_vjp(v, x, index, seed, (0.7, 1.5, 1.0), estimator, k))
        assert emulator.last_launch()[2:4] == (team, groups)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


# ---------------------------------------------------------------------------------------------------
# Binary variables


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_binary_variables(emulator: Emulator, dtype: torch.dtype) -> None:
    """A thread has one; their outcomes are certain at the ends."""
    inf = torch.inf
    x = torch.tensor([-inf, inf, torch.nan, 1e4, -1e4, 0.0, 30.0, -30.0] + [0.3 * i - 20 for i in range(133)])
    x = x.to(dtype)[:, None]
    v = torch.linspace(-2, 2, len(x))[:, None].to(dtype)
    seed = torch.tensor([11])
    compare_sample(emulator, x, seed, binary=True)
    compare_sample(emulator, x[::2], seed, (1.0, 0.0, 1.7), first_row=2**32 - 5, binary=True)
    for name in reference.TERMS:
        for tau in (1.0, 0.4):
            parameters = parameters_of(name, tau)
            compare(emulator, x[::2], v[::2], seed, reference.BINARY + name, k=3, parameters=parameters)
    for tau in (1e-30, 0.05, 0.9, 1.5, 10.0):
        # Errors of float32's few nodes are relative to the largest gradient, not to each.
        call = (reference.BINARY + "gumbel_rao", reference.ALL_DRAWS)
        compare(emulator, x, v, seed, *call, parameters=(tau, 0.0, 1.0), at_least=1e-6)


# ---------------------------------------------------------------------------------------------------
# Long rows


@pytest.mark.parametrize(
    ("shape", "multiprocessors", "l2_bytes", "shared_bytes", "blocks", "split", "outside"),
    [
        ((2, 8200), 1, 2**20, 2**18, 1, 1, 0),
        ((2, 8200), 1, 2**20, 2**19, 2, 1, 0),
        ((3, 8200), 1, 2**20, 2**17, 2, 1, 2 * 3 * 5),
        ((3, 8200), 1, 2**20, 0, 2, 1, 2 * 4 * 5),
        ((1, 8195), 2, 2**20, 2**16, 2, 2, 2 * 3 * 3),
        ((2, 12000), 2, 2**10, 2**16, 3, 3, 3 * 3 * 2),
        ((1, 12000), 2, 2**10, 2**19, 2, 2, 0),
    ],
    ids=[
        "a block, rows in turn, in shared memory",
        "two blocks on a multiprocessor, both in shared memory",
        "two blocks, rows in turn, partly in shared memory",
        "two blocks, rows in turn, none of them in shared memory",
        "several blocks a row, partly in shared memory",
        "several blocks a row, rows in turn, partly in shared memory",
        "several blocks a row, in shared memory",
    ],
)
def test_long_rows(
    emulator: Emulator,
    shape: tuple[int, int],
    multiprocessors: int,
    l2_bytes: int,
    shared_bytes: int,
    blocks: int,
    split: int,
    outside: int,
) -> None:
    """Of arrays that are not in shared memory, what a block's threads have in one round: 8192 bytes."""
    emulator.machine(multiprocessors, l2_bytes, shared_bytes)
    x, v, seed = inputs(shape, torch.float32)
    index = compare_sample(emulator, x, seed)
    for estimator in ESTIMATORS if shape[0] == 3 and shared_bytes else ("straight_through", "reinmax_cv"):
        compare(emulator, x, v, seed, estimator, k=2)
    results = []
    for order in range(3):
        emulator.machine(multiprocessors, l2_bytes, shared_bytes, order)
        results.append(emulator.surrogate_vjp(v, x, index, seed, (0.7, 0.3, 1.0), "reinmax_rk2", 1))
        launch = emulator.last_launch()
        assert (launch.blocks, launch.split) == (blocks, split)
        assert launch.workspace_bytes // 8192 == outside
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_long_rows_of_other_dtypes(emulator: Emulator, dtype: torch.dtype) -> None:
    x, v, seed = inputs((1, 1030 if dtype == torch.float64 else 8200), dtype)
    compare_sample(emulator, x, seed)
    for estimator in ("gst_pi", "reinmax_rao") if dtype != torch.float64 else ESTIMATORS:
        compare(emulator, x, v, seed, estimator, k=2)


def test_an_unlikely_category_is_not_lost(emulator: Emulator) -> None:
    """Rows whose only mass lies at an end, or nearly so; the last category of positive weight is the last drawn."""
    for n in (10, 700, 8200):
        x = torch.full((4, n), -torch.inf)
        x[0, 0] = x[1, n - 1] = x[2, n // 2] = 0.0
        x[3, 1], x[3, n - 2] = 0.0, -40.0
        for seed in (1, 2):
            compare_sample(emulator, x, torch.tensor([seed]))


# ---------------------------------------------------------------------------------------------------
# The rules of rows and calls, in each kernel


@pytest.mark.parametrize("columns", [10, 300, 8200])
def test_masks_and_bad_rows(emulator: Emulator, columns: int) -> None:
    x, v, seed = inputs((8, columns), torch.float32)
    x[0, ::3] = -torch.inf  # some categories
    x[1] = -torch.inf  # all of them
    x[2, 1:] = -torch.inf  # all but one
    x[3, 4], x[4, 5] = torch.nan, torch.inf
    x[5] = 1e4 * x[5].sign()
    x[6, 0], x[6, 1] = 3e38, -3e38
    v[0, ::3] = torch.inf  # an upstream gradient where nothing can be sampled
    compare_sample(emulator, x, seed)
    for estimator in ESTIMATORS if columns < 4000 else ("gst_pi", "reinmax_cv", "reinmax_argmax"):
        compare(emulator, x, v, seed, estimator, k=2)


@pytest.mark.parametrize("columns", [10, 300])
def test_layouts(emulator: Emulator, columns: int) -> None:
    wide, _, seed = inputs((6, 5, 2 * columns), torch.float32)
    layouts = {
        "every second column": wide[..., ::2],
        "part of a row": wide[..., 3 : 3 + columns],
        "rows swapped": wide[..., :columns].transpose(0, 1),
        "categories first": wide[..., :columns].permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "expanded": wide[:1, :, :columns].expand(6, 5, columns),
        "offset": wide.flatten()[7 : 7 + 4 * columns].view(2, 2, columns),
    }
    for layout, x in layouts.items():
        v = torch.randn((*x.shape, 2), generator=torch.Generator().manual_seed(1))[..., 0]  # strided too
        try:
            compare_sample(emulator, x, seed)
            for estimator in ("straight_through", "gumbel_rao"):
                compare(emulator, x, v, seed, estimator, k=2)
        except AssertionError as error:
            raise AssertionError(layout) from error


@pytest.mark.parametrize("columns", [10, 8200])
def test_an_index_out_of_range_touches_no_other_memory(emulator: Emulator, columns: int) -> None:
    """It cannot be checked without waiting for the device; it is taken for 0."""
    x, v, seed = inputs((2, columns), torch.float32)
    zero = emulator.surrogate_vjp(v, x, torch.zeros(2, dtype=torch.int64), seed, UNIT, "gumbel_rao", 2)
    for bad in (columns, 2**40, -(2**40)):
        got = emulator.surrogate_vjp(v, x, torch.full((2,), bad), seed, UNIT, "gumbel_rao", 2)
        assert torch.equal(got, zero)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1300, 10), (129, 12), (130, 1), (6, 301)], ids=str)
def test_tiles_wherever_a_tensor_begins(
    emulator: Emulator, shape: tuple[int, int], shift: int, dtype: torch.dtype
) -> None:
    """Rows staged through shared memory: what lies before and behind the aligned middle, and a last block in part."""
    emulator.machine(1)
    x, v, seed = inputs(shape, dtype)
    storage = torch.full((x.numel() + 8,), 7.0, dtype=dtype)
    storage[shift : shift + x.numel()] = x.flatten()
    x = storage[shift : shift + x.numel()].view(shape)
    compare_sample(emulator, x, seed)
    for estimator in ("straight_through", "gumbel_rao"):
        compare(emulator, x, v, seed, estimator, k=2)


def test_masks_huge_logits_and_rows_without_a_sample_in_one_block(emulator: Emulator) -> None:
    """Each takes another path than the rows beside it in its warp."""
    emulator.machine(1)
    x, v, seed = inputs((64, 10), torch.float32)
    x[1, 3:] = -torch.inf
    x[2] = -torch.inf
    x[3, 4] = torch.nan
    x[4, 0], x[4, 1] = 3e38, -3e38
    x[5] = -3e38
    v[1, 5] = torch.nan
    compare_sample(emulator, x, seed)
    for estimator in ESTIMATORS:
        compare(emulator, x, v, seed, estimator, k=3)
    taus = (1.0, 0.5, 1.0, 2.0)  # a path of its own at 1
    parameters = torch.tensor([(tau, 1.5, 1.0) for tau in taus], dtype=torch.float64).repeat(16, 1)
    x, v, seed = inputs((64, 64), torch.float32)
    for estimator in ("reinmax", "gumbel_rao", "reinmax_cv"):
        index = reference.sample(x, seed, UNIT)[1]
        call = (x, index, seed, parameters, estimator, 3)
        got, want = emulator.surrogate_vjp(v, *call), reference.surrogate_vjp(v, *call)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(37, 10), (2, 1500)], ids=str)
@pytest.mark.parametrize("tau", [16.5, 1e6])
def test_hot_rows_of_mve_are_computed_in_double(
    emulator: Emulator, shape: tuple[int, int], dtype: torch.dtype, tau: float
) -> None:
    """In registers and as long rows, from operands that are not."""
    emulator.machine(1)
    x, v, seed = inputs(shape, dtype)
    compare(emulator, x, v, seed, "mve", k=1, parameters=(1.0, tau, 1.0))
    each = torch.tensor([[1.0, tau, 1.0]], dtype=torch.float64).expand(shape[0], 3)
    compare(emulator, x, v, seed, "mve", k=1, parameters=each)
