"""The walk that bench.sass counts: loops over lanes in full, rare blocks skipped, a loop over draws taken once."""

import re
import shutil

import pytest

from bench import sass


def listing(*lines: str) -> list[sass.Instruction]:
    return [sass.Instruction(16 * number, line) for number, line in enumerate(lines)]


def test_straight_code_counts_to_its_exit() -> None:
    assert sass.executed(listing("MOV R0, R1", "FADD R0, R0, R1", "EXIT", "NOP"), 1) == (3, 0)


@pytest.mark.parametrize(("team", "turns"), [(2, 1), (4, 2), (32, 5), (256, 5)])
def test_a_loop_over_lanes_turns_as_often_as_a_team_has_steps(team: int, turns: int) -> None:
    code = listing("MOV R0, R1", "SHFL.BFLY PT, R2, R0, R3, 0x1f", "@P1 BRA 0x10", "EXIT")
    assert sass.executed(code, team)[0] == 2 + 2 * turns


def test_a_block_that_only_computes_is_rare_and_one_that_stores_is_not() -> None:
    assert sass.executed(listing("@P0 BRA 0x30", "FSEL R0, R1, R2, P0", "MOV R3, R4", "EXIT"), 1)[0] == 2
    assert sass.executed(listing("@P0 BRA 0x30", "STG.E [R2], R1", "MOV R3, R4", "EXIT"), 1)[0] == 4


def test_of_two_alternatives_the_one_that_does_more_is_rare() -> None:
    code = listing("@P0 BRA 0x30", "FADD R0, R0, R1", "BRA 0x60", "FADD R0, R0, R1", "FMNMX R0, R0, R1", "NOP", "EXIT")
    assert sass.executed(code, 1)[0] == 4


def test_a_long_jump_back_closes_the_loop_over_draws() -> None:
    code = listing("MOV R0, R1", *["FFMA R0, R0, R1, R2"] * 300, "@P0 BRA 0x10", "EXIT")
    assert sass.executed(code, 1) == (303, 301)


def test_what_cuobjdump_prints_is_read() -> None:
    said = "        /*0000*/                   LDC R1, c[0x0][0x28] ;   /* 0x00000a00ff017b82 */\n\t/* 0x000fe2 */\n"
    said += "        /*0010*/              @!P1 BRA 0x4f80 ;\n"
    assert sass.parse(said) == [sass.Instruction(0, "LDC R1, c[0x0][0x28]"), sass.Instruction(16, "@!P1 BRA 0x4f80")]
    assert sass.parse(said)[1].target == 0x4F80


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="NOT COVERED: no nvcc, no kernel's machine code is read")
@pytest.mark.parametrize("flags", [("-DESTIMATOR=kStraightThrough",), ("-DESTIMATOR=kStraightThrough", "-DSAMPLE")])
def test_staged_rows_are_read_and_written_in_shared_memory(flags: tuple[str, ...]) -> None:
    """Each address space has instructions of its own, which an emulation on a host cannot tell apart."""
    try:
        sass.tool("cuobjdump")
    except SystemExit as missing:
        pytest.skip(f"NOT COVERED: {missing}")
    code = " ".join(line.text for line in sass.listing(sass.Case("", 10, 1, 3, flags, None), sass.ROOT))
    of_columns = len(re.findall(r"\bLD(?:S|\.E)?\.64", code)), len(re.findall(r"\bST(?:S|\.E)?\.64", code))
    assert of_columns == ((5, 5) if "-DSAMPLE" in flags else (10, 5))  # ten columns by twos, of each tensor
    # What is left for device memory: the chunks and edges of a tile, and the seed or the index, of eight bytes.
    assert len(re.findall(r"\b(?:LDG|STG)\.E\.64", code)) <= 2
