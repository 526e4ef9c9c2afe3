"""What is Triton's alone: when it is imported, how rows are cut into tiles, and the boundaries of every kernel."""

import math
import subprocess
import sys

import pytest
import torch
from helpers import TARGETS
from test_kernels import close, compare, inputs
from torch import Tensor

from discrete_ops import backends, reference

triton = pytest.importorskip("triton", reason="NOT COVERED: triton is not installed")

from discrete_ops.triton_kernels import launch, long_estimators, operators  # noqa: E402

ON_TRITON = [target for target in TARGETS if target[0] == "triton"]
runs = pytest.mark.skipif(not ON_TRITON, reason="NOT COVERED: no GPU, and TRITON_INTERPRET=1 is not set")
TARGET = ON_TRITON[-1] if ON_TRITON else ("triton", "none")


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
        ("tau", {"tau": torch.ones(3, dtype=torch.float64)}),
        ("grad", {"grad": torch.zeros(5, 3)}),
    ],
)
def test_what_would_be_read_beyond_its_end_is_refused(argument: str, change: dict[str, Tensor]) -> None:
    logits = torch.zeros(5, 4, device=TARGET[1])
    call = {"grad": logits, "index": torch.zeros(5, dtype=torch.int64), "seed": torch.tensor([1]), "tau": 1.0, **change}
    call = {name: x.to(TARGET[1]) if isinstance(x, Tensor) and x.is_cpu else x for name, x in call.items()}
    with pytest.raises((ValueError, TypeError), match=f"{argument}: got"):
        backends.get("triton").surrogate_vjp(
            call["grad"], logits, call["index"], call["seed"], call["tau"], "gst", 1.0, 1
        )


# ---------------------------------------------------------------------------------------------------
# Every boundary of the heuristic


@runs
@pytest.mark.parametrize("columns", sorted({n + d for n in (2**i for i in range(2, 15)) for d in (0, 1)}))
def test_edges_of_the_buckets(columns: int) -> None:
    """At a bucket's last column and the next one's first; the last pair is the last row in registers and the first in
    parts."""
    logits, v, seed = inputs((2, columns), torch.float32)
    compare(TARGET, logits, v, seed, "gumbel_rao", tau=1.0, k=1)


@runs
def test_a_row_of_many_parts() -> None:
    logits, v, seed = inputs((1, 70_001), torch.float32)
    logits[0, 4096:12288] = -torch.inf  # whole parts are masked
    compare(TARGET, logits, v, seed, "gst_pi", tau=1.0, k=1)


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
@pytest.mark.parametrize("estimator", reference.TERMS)
def test_long_rows_of_every_estimator(estimator: str, tiny_tiles: None) -> None:
    """Three tiles in two parts; one row ordinary, one with masks (a whole tile, the winner's rivals in another
    part)."""
    logits, v, seed = inputs((2, 45), torch.float32)
    logits[1, 3:35] = -torch.inf
    v[1, 3:35] = torch.inf
    compare(TARGET, logits, v, seed, estimator, tau=1.0, k=3)


@runs
@pytest.mark.parametrize("estimator", ["straight_through", "reinmax_cv"])
def test_long_rows_at_other_temperatures(estimator: str, tiny_tiles: None) -> None:
    logits, v, seed = inputs((2, 33), torch.float64)
    compare(TARGET, logits, v, seed, estimator, tau=torch.tensor([0.4, 3.0], dtype=torch.float64), k=3)


@runs
def test_long_rows_that_are_strided_or_bad(tiny_tiles: None) -> None:
    wide, v, _ = inputs((5, 40), torch.float16)
    logits = wide[:, ::2]
    logits[0, 7], logits[1, 7], logits[2] = torch.nan, torch.inf, -torch.inf
    logits[3, 1:] = -torch.inf
    compare(TARGET, logits, v[:, 1::2], torch.tensor([3, 1, 4, 1, 5]), "reinmax", tau=1.0, k=1)


@runs
def test_long_and_short_kernels_agree(tiny_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also bit by bit with themselves: every sum has a fixed order."""
    logits, v, seed = inputs((2, 40), torch.float32)
    kernels = backends.get("triton")
    logits, v, seed = (x.to(TARGET[1]) for x in (logits, v, seed))
    index = kernels.sample(logits, seed)[1]

    def pull() -> Tensor:
        return kernels.surrogate_vjp(v, logits, index, seed, 1.0, "gumbel_rao", 0.0, 3)

    long = pull()
    assert torch.equal(long, pull())
    monkeypatch.setattr(operators, "MOST_COLUMNS", launch.MOST_COLUMNS)
    assert torch.equal(kernels.sample(logits, seed)[1], index)
    close(pull().cpu(), long.cpu().double(), "gumbel_rao")
