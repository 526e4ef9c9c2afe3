"""What is Triton's alone: when it is imported, how rows are cut into tiles, and the boundaries of every kernel."""

import math
import subprocess
import sys

import pytest
import torch
from draws import ESTIMATORS
from helpers import TARGETS
from test_kernels import COEFFICIENT, close, inputs
from torch import Tensor

from discrete_ops import reference

triton = pytest.importorskip("triton", reason="NOT COVERED: triton is not installed")

from discrete_ops.triton_kernels import launch, long_estimators, operators  # noqa: E402

from discrete_ops import triton_kernels  # noqa: E402

ON_TRITON = [target for target in TARGETS if target[0] == "triton"]
runs = pytest.mark.skipif(not ON_TRITON, reason="NOT COVERED: no GPU, and TRITON_INTERPRET=1 is not set")
DEVICE = ON_TRITON[-1][1] if ON_TRITON else "none"


def there(x: Tensor) -> Tensor:
    """The same values in the same memory layout, on the device."""
    storage = torch.empty(0, dtype=x.dtype, device=DEVICE).set_(x.untyped_storage().to(device=DEVICE))
    return storage.as_strided(x.shape, x.stride(), x.storage_offset())


def compare(
    logits: Tensor,
    v: Tensor,
    seed: Tensor,
    estimator: str,
    parameters: reference.Parameters | None = None,
    k: int = 3,
    first_row: int = 0,
) -> None:
    """Every function that serves the estimator, with the reference."""
    parameters = (1.0, COEFFICIENT.get(estimator, 0.0), 1.0) if parameters is None else parameters
    given = there(parameters) if isinstance(parameters, Tensor) else parameters
    sample, index = reference.sample(logits, seed, parameters, first_row)
    got_sample, got_index = triton_kernels.sample(there(logits), there(seed), given, first_row)
    assert torch.equal(got_index.cpu(), index)
    torch.testing.assert_close(got_sample.cpu(), sample, rtol=0, atol=0, equal_nan=True)
    names = ["surrogate_vjp"]
    if estimator in reference.WITH_SOFT_SAMPLE:
        names += ["surrogate", "tau_derivative"]
    for name in names:
        tensors = [logits, index, seed] if name != "surrogate_vjp" else [v, logits, index, seed]
        want = getattr(reference, name)(*tensors, parameters, estimator, k, first_row)
        got = getattr(triton_kernels, name)(*map(there, tensors), given, estimator, k, first_row)
        close(got.cpu(), want, estimator)


def groups(*rows: tuple[float, float, float]) -> Tensor:
    """The parameters of groups of rows."""
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------
# Imports

CPU_CALL = (
    "import sys, torch, discrete_ops as do\n"
    "x = torch.zeros(3, 4, requires_grad=True)\n"
    "do.gst(x, seed=1).backward(torch.randn(3, 4))\n"
)


def test_the_cpu_never_imports_triton() -> None:
    script = f"{CPU_CALL}assert not any(name.split('.')[0] == 'triton' for name in sys.modules)\n"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_everything_else_works_without_triton() -> None:
    script = (
        f"import sys\nsys.modules['triton'] = None\n{CPU_CALL}"
        "assert 'triton' not in do.available_backends()\n"
        "assert do.build_info()['missing']['triton'] == 'triton is not installed'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---------------------------------------------------------------------------------------------------
# The heuristic


@pytest.mark.parametrize("has_draws", [False, True])
def test_tiles_hold_whole_short_rows(has_draws: bool) -> None:
    for columns in range(1, launch.MOST_COLUMNS + 1):
        tile = launch.block(columns, has_draws)
        assert columns <= tile.columns < max(2 * columns, launch.LEAST_COLUMNS + 1)
        assert tile.rows * tile.columns >= 4 * tile.strips * 32 * tile.warps  # no thread idles
        assert tile.warps & (tile.warps - 1) == 0
        assert 1 <= tile.warps <= launch.MOST_WARPS


@pytest.mark.parametrize("rows", [1, 2, 7, 132, 511, 100_000])
def test_parts_cover_long_rows(rows: int) -> None:
    for columns in (16385, 20480, 20481, 65536, 128256, 262144, 2**20 + 1):
        parts, length = launch.split(rows, columns)
        assert length % launch.TILE == 0
        assert (parts - 1) * length < columns <= parts * length
        assert parts <= launch.PARTS
    assert rows < launch.PROGRAMS or parts == 1  # enough rows fill the machine by themselves


def test_rows_at_one_stride_are_not_copied() -> None:
    x = torch.zeros(4, 6, 10)
    for same, row, column in [
        (x, 10, 1),
        (x[..., ::2], 10, 2),
        (x[:, :, 3:7], 10, 1),
        (x[::2, :1], 120, 1),
        (x[:1, :1].expand(4, 6, 10), 0, 1),
        (x[0].t(), 1, 10),
    ]:
        found = launch.strided(same)
        assert (found.row, found.column) == (row, column)
        assert found.tensor is same
    copied = launch.strided(x.transpose(0, 1))
    assert (copied.row, copied.column) == (10, 1)
    assert torch.equal(copied.tensor, x.transpose(0, 1))


@pytest.mark.parametrize("x", [0.0, 1.0, -0.5, -0.3, 1e-300, math.inf])
def test_doubles_pass_by_their_bits(x: float) -> None:
    """All but the last, as an integer that is never negative and, but for 0, never fits 32 bits."""
    bits = launch.bits(x)
    assert bits == 0 if x == 0 else 2**31 <= bits < 2**63
    assert torch.tensor(bits).bitwise_left_shift(1).view(torch.float64).item() == pytest.approx(x, rel=2**-52, abs=0)


@runs
@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("seed", {"seed": torch.tensor([1, 2])}),
        ("seed", {"seed": torch.tensor([1], dtype=torch.int32)}),
        ("seed", {"seed": torch.tensor([1], device="meta")}),
        ("index", {"index": torch.zeros(5, dtype=torch.int32)}),
        ("index", {"index": torch.zeros(6, dtype=torch.int64)}),
        ("parameters", {"parameters": torch.ones(4, 3, dtype=torch.float64)}),
        ("parameters", {"parameters": torch.ones(5, 2, dtype=torch.float64)}),
        ("parameters", {"parameters": torch.ones(3, dtype=torch.float64)}),
        ("parameters", {"parameters": torch.ones(5, 3)}),
        ("grad", {"grad": torch.zeros(5, 3)}),
    ],
)
def test_what_would_be_read_beyond_its_end_is_refused(argument: str, change: dict[str, Tensor]) -> None:
    logits = torch.zeros(5, 4)
    call = {"grad": logits, "index": torch.zeros(5, dtype=torch.int64), "seed": torch.tensor([1])}
    call = {"logits": logits, "parameters": (1.0, 1.0, 1.0), **call, **change}
    call = {name: there(x) if isinstance(x, Tensor) and x.is_cpu else x for name, x in call.items()}
    with pytest.raises((ValueError, TypeError), match=f"{argument}: got"):
        triton_kernels.surrogate_vjp(**call, estimator="gst", num_samples=1)


# ---------------------------------------------------------------------------------------------------
# Every boundary of the heuristic


@runs
@pytest.mark.parametrize("columns", sorted({n + d for n in (2**i for i in range(2, 15)) for d in (0, 1)}))
def test_edges_of_the_buckets(columns: int) -> None:
    """At a bucket's last column and the next one's first; the last pair is the last row in registers and the first in
    parts."""
    logits, v, seed = inputs((2, columns), torch.float32)
    compare(logits, v, seed, "gumbel_rao", k=1)


@runs
def test_a_row_of_many_parts() -> None:
    logits, v, seed = inputs((1, 70_001), torch.float32)
    logits[0, 4096:12288] = -torch.inf  # whole parts are masked
    compare(logits, v, seed, "gst_pi", k=1)


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than 4 columns take the kernels of long rows, in tiles of 16, two parts a row, two draws a
    launch."""
    monkeypatch.setattr(operators, "MOST_COLUMNS", 4)
    for module in (launch, operators, long_estimators):
        monkeypatch.setattr(module, "TILE", 16)
    monkeypatch.setattr(launch, "PROGRAMS", 4)
    monkeypatch.setattr(long_estimators, "DRAWS", 2)


@runs
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_long_rows_of_every_estimator(estimator: str, tiny_tiles: None) -> None:
    """Three tiles in two parts; one row ordinary, one with masks (a whole tile, the winner's rivals in another
    part)."""
    logits, v, seed = inputs((2, 45), torch.float32)
    logits[1, 3:35] = -torch.inf
    v[1, 3:35] = torch.inf
    compare(logits, v, seed, estimator)


@runs
def test_long_rows_that_are_strided_or_bad(tiny_tiles: None) -> None:
    wide, v, _ = inputs((5, 40), torch.float16)
    logits = wide[:, ::2]
    logits[0, 7], logits[1, 7], logits[2] = torch.nan, torch.inf, -torch.inf
    logits[3, 1:] = -torch.inf
    compare(logits, v[:, 1::2], torch.tensor([3, 1, 4, 1, 5]), "reinmax", k=1)


@runs
def test_long_and_short_kernels_agree(tiny_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also bit by bit with themselves: every sum has a fixed order."""
    logits, v, seed = inputs((2, 40), torch.float32)
    logits, v, seed = map(there, (logits, v, seed))
    parameters = (1.0, 0.0, 1.0)
    index = triton_kernels.sample(logits, seed, parameters)[1]

    def pull() -> Tensor:
        return triton_kernels.surrogate_vjp(v, logits, index, seed, parameters, "gumbel_rao", 3)

    long = pull()
    assert torch.equal(long, pull())
    monkeypatch.setattr(operators, "MOST_COLUMNS", launch.MOST_COLUMNS)
    assert torch.equal(triton_kernels.sample(logits, seed, parameters)[1], index)
    close(pull().cpu(), long.cpu().double(), "gumbel_rao")


# ---------------------------------------------------------------------------------------------------
# Parameters, rows' numbers and modes, on short rows and long ones


@pytest.fixture(params=["short", "long"])
def either(request: pytest.FixtureRequest) -> None:
    """Rows of 21 columns take the kernels of short rows, or those of long ones in two parts."""
    if request.param == "long":
        request.getfixturevalue("tiny_tiles")


@runs
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_of_each_row(estimator: str, either: None) -> None:
    """In float64: other temperatures amplify float32 rounding."""
    logits, v, seed = inputs((3, 21), torch.float64)
    compare(logits, v, seed, estimator, groups((0.4, 0.3, 1.0), (1.0, 1.5, 0.5), (3.0, -0.2, 7.0)))


@runs
def test_parameters_of_groups_of_rows(either: None) -> None:
    """Rows a group that are no power of two; one group; numbers, which are as good as one."""
    logits, v, seed = inputs((6, 21), torch.float64)
    for parameters in (groups((0.4, 0.3, 2.0), (2.0, 1.5, 0.5)), groups((0.4, 0.3, 2.0)), (0.4, 0.3, 2.0)):
        compare(logits, v, seed, "gst", parameters)


@runs
@pytest.mark.parametrize("sample_tau", [1e-30, 0.3, 1e30])
def test_sample_tau_in_float32(sample_tau: float, either: None) -> None:
    logits, v, seed = inputs((4, 21), torch.float32)
    logits[1, 2:20] = -torch.inf
    compare(logits, v, seed, "reinmax", (1.0, 0.0, sample_tau))


@runs
def test_bad_temperatures_show_in_their_rows_alone(either: None) -> None:
    bad = (math.nan, math.inf, 0.0, -1.0)
    logits, v, seed = inputs((2 * len(bad) + 1, 21), torch.float32)
    tau, sample_tau = groups(*((1.0, 0.0, x) for x in bad)), groups(*((x, 0.0, 1.0) for x in bad))
    parameters = torch.cat([tau, sample_tau, groups((1.0, 0.0, 1.0))])
    compare(logits, v, seed, "straight_through", parameters)
    index = triton_kernels.sample(there(logits), there(seed), there(parameters))[1]
    assert index[: len(bad)].tolist() == [-1] * len(bad)
    assert (index[len(bad) :] >= 0).all()


@runs
@pytest.mark.parametrize("first_row", [3, 2**32 - 1])
def test_the_first_rows_number(first_row: int, either: None) -> None:
    """Of each seed's group; the second one is carried into the counter's next word."""
    logits, v, _ = inputs((4, 21), torch.float64)
    compare(logits, v, torch.tensor([3, 1]), "gumbel_rao", first_row=first_row, k=1)


@runs
def test_a_part_of_the_rows_is_drawn_as_in_the_whole(either: None) -> None:
    logits, v, seed = map(there, inputs((4, 21), torch.float32))
    parameters = there(groups(*((0.5 + row, 0.0, 1.0 + row) for row in range(4))))
    whole = [*triton_kernels.sample(logits, seed, parameters)]
    whole.append(triton_kernels.surrogate_vjp(v, logits, whole[1], seed, parameters, "gumbel_rao", 1))
    sample, index = triton_kernels.sample(logits[2:], seed, parameters[2:], 2)
    gradient = triton_kernels.surrogate_vjp(v[2:], logits[2:], index, seed, parameters[2:], "gumbel_rao", 1, 2)
    for part, all_rows in zip((sample, index, gradient), whole, strict=True):
        assert torch.equal(part, all_rows[2:])


@runs
@pytest.mark.parametrize("tau", [1.0, 0.05])
@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e in reference.WITH_SOFT_SAMPLE])
def test_derivatives_in_tau_where_weights_vanish(estimator: str, tau: float, either: None) -> None:
    logits, v, seed = inputs((2, 21), torch.float64)
    logits[0, 5] = 2000.0
    logits[1, 3:12] = -torch.inf
    compare(logits, v, seed, estimator, (tau, 0.7, 1.0), k=1)


@runs
def test_the_largest_gradients(either: None) -> None:
    """Neither sums nor differences from the mean leave float32 where the result does not."""
    v = torch.full((1, 21), 3e38)
    v[0, 1:4] = -3e38
    logits = torch.zeros(1, 21)
    logits[0, 4:] = -torch.inf
    index, seed = torch.tensor([2]), torch.tensor([1])
    call = (*map(there, (v, logits, index, seed)), (1.0, 0.0, 1.0))
    want = torch.tensor([1.125e38, -3.75e37, -3.75e37, -3.75e37])
    got = triton_kernels.surrogate_vjp(*call, "straight_through", 1)[0].cpu()
    torch.testing.assert_close(got, torch.cat([want, torch.zeros(17)]), rtol=1e-6, atol=0)
    # Half way between the sample and the softmax, whose terms need not be representable.
    got = triton_kernels.surrogate_vjp(*call, "reinmax", 1).cpu()
    torch.testing.assert_close(got, reference.surrogate_vjp(v, logits, *call[2:], "reinmax", 1), rtol=2e-6, atol=0)


@runs
def test_operators_are_the_functions() -> None:
    """What tracers see: the same results, from the schema of the compiled libraries; and their shapes, from fakes."""
    logits, v, seed = map(there, inputs((3, 5), torch.float32))
    parameters, estimator, k = (0.7, 0.5, 2.0), "gumbel_rao", 2
    numbers = (None, *parameters, 4)
    ops = torch.ops.discrete_ops_triton
    sample, index = triton_kernels.sample(logits, seed, parameters, 4)
    calls = [(ops.sample, (logits, seed, *numbers), (sample, index))]
    for name in ("surrogate", "surrogate_vjp", "tau_derivative"):
        tensors = (v, logits, index, seed) if name == "surrogate_vjp" else (logits, index, seed)
        want = getattr(triton_kernels, name)(*tensors, parameters, estimator, k, 4)
        calls.append((getattr(ops, name), (*tensors, *numbers, estimator, k), want))
    for op, arguments, want in calls:
        torch.testing.assert_close(op(*arguments), want, rtol=0, atol=0)
        torch.library.opcheck(op.default, arguments, test_utils=("test_schema", "test_faketensor"))
