"""The interpreter of machine code, and what the kernels compute as they are shipped: no GPU takes part.

Unlike the emulation of their source, these are the built library's instructions: nvcc's address spaces, its fused
products, its code for diverged warps.
"""

import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from cuda_emulator import TOLERANCE, UNIT, compare, compare_sample, inputs, parameters_of
from draws import ESTIMATORS

from bench import sass
from bench.sass_arithmetic import OPERATIONS
from bench.sass_code import Kernel, instruction
from bench.sass_machine import PARAMETER_AT, WARP, Launch, Machine
from bench.sass_run import MachineCode
from discrete_ops import reference

# ---------------------------------------------------------------------------------------------------
# The interpreter


def executed(*lines: str, threads: int = WARP, memory: np.ndarray | None = None) -> Machine:
    """All threads have run these lines; line n is at address 16 n."""
    parts = ((memory.ctypes.data, memory.nbytes),) if memory is not None else ()
    parameter = np.array([memory.ctypes.data if memory is not None else 0], np.uint64).tobytes()
    code = {16 * n: instruction(16 * n, line) for n, line in enumerate((*lines, "EXIT"))}
    kernel = Kernel(code, PARAMETER_AT + len(parameter), 0)
    machine = Machine(Launch(kernel, parameter, 1, threads, 1024, parts))
    machine.run()
    return machine


def test_a_warp_that_diverges_meets_again() -> None:
    machine = executed(
        "S2R R0, SR_TID.X",
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "BSSY B0, 0x80",
        "@P0 BRA 0x60",
        "VIADD R1, R0, 0x64",
        "BRA 0x70",
        "VIADD R1, R0, 0x1",
        "BSYNC B0",
        "SHFL.BFLY PT, R2, R1, 0x10, 0x1f",
    )
    want = [lane + 16 + 1 if lane < 16 else lane - 16 + 100 for lane in range(WARP)]
    assert machine.registers[2].tolist() == want
    assert machine.issued.tolist() == [10]  # both ways, everything else once


def test_lanes_wait_for_those_that_go_round_a_loop_more_often() -> None:
    """The code behind the loop lies before it: order of addresses alone would not bring them together."""
    machine = executed(
        "S2R R0, SR_TID.X",
        "BSSY B0, 0x50",
        "BRA 0x80",
        "NOP",
        "BSYNC B0",
        "VOTE.ANY R2, PT, PT",
        "EXIT",
        "NOP",
        "VIADD R1, R1, 0x1",
        "ISETP.LT.AND P0, PT, R1, R0, PT",
        "@!P0 BRA 0x40",
        "BRA 0x80",
    )
    assert machine.registers[1].tolist() == [max(1, lane) for lane in range(WARP)]
    assert machine.registers[2].tolist() == [2**WARP - 1] * WARP


def test_lanes_that_are_gone_hold_nobody() -> None:
    machine = executed(
        "S2R R0, SR_TID.X", "ISETP.EQ.AND P0, PT, R0, 0x3, PT", "@P0 EXIT", "WARPSYNC.ALL", "MOV R1, 0x1"
    )
    assert machine.registers[1].sum() == WARP - 1


@pytest.mark.parametrize("barrier", ["BAR.SYNC.DEFER_BLOCKING 0x0", "BAR.SYNC.DEFER_BLOCKING R4, R4"])
def test_a_barrier_holds_a_block(barrier: str) -> None:
    """Each thread reads what the other warp wrote; a register has the barrier's number, and the count above it."""
    machine = executed(
        "S2R R0, SR_TID.X",
        "MOV R4, 0x400002",
        "IMAD.SHL.U32 R1, R0, 0x4, RZ",
        "LOP3.LUT R2, R1, 0x80, RZ, 0x3c, !PT",
        "ISETP.GE.AND P0, PT, R0, 0x20, PT",
        "@P0 BRA 0x80",
        "STS [R1+0x400], R0",
        "BRA 0xa0",
        "NOP",
        "STS [R1+0x400], R0",
        barrier,
        "LDS R3, [R2+0x400]",
        threads=2 * WARP,
    )
    assert machine.registers[3].tolist() == [thread ^ WARP for thread in range(2 * WARP)]


def test_a_barrier_that_a_warp_never_reaches_raises() -> None:
    with pytest.raises(RuntimeError, match="32 threads wait for ever"):
        executed(
            "S2R R0, SR_TID.X",
            "ISETP.GE.AND P0, PT, R0, 0x20, PT",
            "@P0 BRA 0x40",
            "BAR.SYNC.DEFER_BLOCKING 0x0, 0x40",
            threads=2 * WARP,
        )


def test_an_instruction_of_no_lane_counts_and_changes_nothing() -> None:
    machine = executed("MOV R1, 0x7", "@!PT MOV R1, 0x8", "ISETP.NE.AND P1, PT, RZ, RZ, PT", "@P1 BRA 0x0")
    assert (machine.registers[1] == 7).all()
    assert machine.issued.tolist() == [5]


def test_a_shuffle_from_a_lane_that_takes_no_part_raises() -> None:
    with pytest.raises(RuntimeError, match="does not take part"):
        executed("S2R R0, SR_TID.X", "ISETP.LT.AND P0, PT, R0, 0x3, PT", "@P0 SHFL.BFLY PT, R1, R0, 0x1, 0x1f")


@pytest.mark.parametrize("line", ["HMMA.16816.F32 R0, R4, R8, R0", "FADD.RP R0, R1, R2", "LDG.E.S8 R0, [R2.64]"])
def test_what_is_not_known_is_named(line: str) -> None:
    with pytest.raises(NotImplementedError, match=line.split(" ")[0]):
        executed(line)


@pytest.mark.parametrize(
    ("offset", "text"), [("0x80", "not the launch's"), ("-0x4", "not the launch's"), ("0x2", "4 bytes")]
)
def test_memory_that_is_not_the_launchs_is_not_touched(offset: str, text: str) -> None:
    lines = ["LDC.64 R2, c[0x0][0x210]", "S2R R0, SR_TID.X", "IMAD.WIDE R2, R0, 0x4, R2"]
    memory = np.arange(WARP, dtype=np.uint32)
    machine = executed(*lines, "LDG.E R1, [R2.64]", memory=memory)
    assert (machine.registers[1] == memory).all()
    with pytest.raises(MemoryError, match=text):
        executed(*lines, f"LDG.E R1, [R2.64+{offset}]", memory=memory)


def test_sums_of_64_bits_carry() -> None:
    machine = executed(
        "S2R R0, SR_TID.X",
        "MOV R1, 0xfffffffe",
        "IADD3 R2, P0, R0, R1, RZ",
        "IADD3.X R3, RZ, RZ, RZ, P0, !PT",
        "IADD3 R4, P1, RZ, -R0, RZ",  # minus a number: "not" and 1 more
        "IADD3.X R5, RZ, ~RZ, RZ, P1, !PT",
    )
    low, high, minus, sign = machine.registers[2:6].astype(np.uint64)
    lanes = range(WARP)
    assert (low + (high << 32)).tolist() == [lane + 0xFFFFFFFE for lane in lanes]
    assert (minus + (sign << 32)).tolist() == [-lane % 2**64 for lane in lanes]


@pytest.mark.parametrize("mode", [None, "RM", "RP", "RZ"])
def test_fused_products_are_rounded_once(mode: str | None) -> None:
    generator = np.random.default_rng(0)
    a, b, c = generator.standard_normal((3, 2000)).astype(np.float32)
    c = np.where(generator.random(2000) < 0.5, -a * b, c)  # what is left is the product's rounding
    c[:500] *= np.float32(2.0**-40)
    a[0], b[0], c[0] = 4097, 16773121 * 2.0**-60, 1  # 1 + 2^-24 + 2^-60: rounded to float64 first, it would be a tie
    got = OPERATIONS["FFMA"].compute(frozenset({mode} - {None}), a, b, c)
    for x, y, z, value in zip(a, b, c, got, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        error = Fraction(float(value)) - exact
        if mode is None:
            beside = np.nextafter(value, np.float32(-np.inf if error > 0 else np.inf))
            assert abs(error) <= abs(Fraction(float(beside)) - exact)
        else:
            up = {"RM": False, "RP": True, "RZ": exact < 0}[mode]
            assert error >= 0 if up else error <= 0
            inner = np.nextafter(value, np.float32(-np.inf if up else np.inf))
            assert (Fraction(float(inner)) < exact) if up else (Fraction(float(inner)) > exact)


# ---------------------------------------------------------------------------------------------------
# The kernels


@pytest.fixture
def machine() -> MachineCode:
    if not sass.LIBRARY.exists():
        pytest.skip("NOT COVERED: no CUDA library is built, no kernel's machine code is executed")
    if shutil.which("g++") is None or shutil.which("nvcc") is None:
        pytest.skip("NOT COVERED: no g++ or no nvcc, no kernel's machine code is executed")
    try:
        sass.tool("cuobjdump")
    except SystemExit as missing:
        pytest.skip(f"NOT COVERED: {missing}")
    machine = MachineCode()
    machine.machine(1)
    return machine


def test_every_estimator(machine: MachineCode) -> None:
    """Rows of 10, staged through shared memory, a thread a quad of them; masks, and rows without a sample."""
    x, v, seed = inputs((40, 10), torch.float32)
    x[1, 3:] = -torch.inf
    x[2] = -torch.inf
    x[3, 4] = torch.nan
    x[4, 0], x[4, 1] = 3e38, -3e38
    v[1, 5] = torch.nan
    compare_sample(machine, x, seed)
    for estimator in ESTIMATORS:
        compare(machine, x, v, seed, estimator, k=2)


@pytest.mark.parametrize("dtype", [dtype for dtype in TOLERANCE if dtype != torch.float32], ids=str)
def test_other_dtypes(machine: MachineCode, dtype: torch.dtype) -> None:
    x, v, seed = inputs((20, 10), dtype)
    compare_sample(machine, x, seed)
    for estimator in ("gumbel_rao", "reinmax"):
        compare(machine, x, v, seed, estimator, k=2, parameters=parameters_of(estimator, 0.5))


def test_several_warps_a_row_and_teams_that_share_draws(machine: MachineCode) -> None:
    machine.machine(8)
    x, v, seed = inputs((3, 301), torch.float32)
    compare_sample(machine, x, seed)
    for estimator in ("straight_through", "gumbel_rao"):
        compare(machine, x, v, seed, estimator, k=3)
    assert machine.last_launch()[2:4] == (128, 2)


def test_a_device_filled(machine: MachineCode) -> None:
    """A thread has a row of 10, 3 quads in its registers; 4 threads one of 60 or 64, 64 one of 1024, 4 quads each."""
    for shape in ((1300, 10), (300, 60), (300, 64), (80, 1024)):
        x, v, seed = inputs(shape, torch.float32)
        rows = 4
        index = reference.sample(x, seed)[1]
        machine.blocks = [0, 1]
        assert torch.equal(machine.sample(x, seed, UNIT)[1][:rows], index[:rows])
        for estimator in ("straight_through", "gumbel_rao", "reinmax_cv"):
            call = (seed, UNIT, estimator, 2)
            got = machine.surrogate_vjp(v, x, index, *call)[:rows]
            want = reference.surrogate_vjp(v[:rows], x[:rows], index[:rows], *call)
            torch.testing.assert_close(got, want, rtol=2e-6, atol=1e-7)


def test_binary_variables(machine: MachineCode) -> None:
    x = torch.tensor([-torch.inf, torch.inf, torch.nan, 1e4, -1e4, 0.0, *(0.4 * i - 20 for i in range(99))])[:, None]
    v = torch.linspace(-2, 2, len(x))[:, None]
    seed = torch.tensor([11])
    compare_sample(machine, x, seed, (1.0, 0.0, 1.7), first_row=2**32 - 5, binary=True)
    compare(machine, x, v, seed, "binary_reinmax", k=1)
    compare(machine, x, v, seed, "binary_gumbel_rao", k=2)
    compare(machine, x, v, seed, "binary_gumbel_rao", reference.ALL_DRAWS, at_least=1e-6)


@pytest.mark.parametrize(
    ("rows", "multiprocessors", "shared_bytes", "split", "outside"),
    [(2, 1, 2**18, 1, 0), (2, 1, 2**17, 1, 2 * 3 * 5), (1, 2, 2**16, 2, 2 * 3 * 3)],
    ids=["in shared memory", "partly in shared memory", "blocks that wait for each other"],
)
def test_long_rows(
    machine: MachineCode, rows: int, multiprocessors: int, shared_bytes: int, split: int, outside: int
) -> None:
    machine.machine(multiprocessors, shared_bytes=shared_bytes)
    x, v, seed = inputs((rows, 8200), torch.float32)
    compare_sample(machine, x, seed)
    for estimator in ("gumbel_rao", "straight_through"):
        compare(machine, x, v, seed, estimator, k=2)
        assert machine.last_launch().split == split
    assert machine.last_launch().workspace_bytes // 8192 == outside


def test_a_block_of_more_threads_for_a_longer_row_in_registers(machine: MachineCode) -> None:
    for columns in (8190, 8192):
        x, v, seed = inputs((1, columns), torch.float32)
        compare_sample(machine, x, seed)
        for estimator in ("reinmax", "gumbel_rao"):
            compare(machine, x, v, seed, estimator, k=2)
            assert machine.last_launch() == (1, 512, 512, 1, 1, 0)


def test_parameters_and_seeds_of_groups_of_rows(machine: MachineCode) -> None:
    x, v, _ = inputs((12, 10), torch.float32)
    parameters = torch.tensor([[1.0, 1.5, 1.0], [0.5, 1.5, 0.7], [2.0, 1.5, 1.3]], dtype=torch.float64)
    seeds = torch.tensor([3, 4])
    compare_sample(machine, x, seeds, parameters)
    compare(machine, x, v, seeds, "gumbel_rao", k=2, parameters=parameters)
