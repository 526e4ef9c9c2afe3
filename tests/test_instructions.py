"""What the CPU kernels execute, beside the committed counts; and that a slow-down would be seen."""

import copy
import json

import pytest

from bench import instructions

CASE = "sample, rows of 10, float32"


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(instructions.COMMITTED.read_text())


def test_kernels_execute_no_more_instructions_than_committed(committed: dict) -> None:
    if reason := instructions.obstacle():
        pytest.skip(f"NOT COVERED: no instruction is counted: {reason}")
    if reason := instructions.comparable({"compiler": instructions.compiler()}, committed):
        pytest.skip(f"NOT COVERED: {reason}")
    now = instructions.count()
    assert now["counts"].keys() & committed["counts"].keys()
    found = instructions.differences(now, committed)
    assert not found, "\n".join(found)


def doctored(counts: dict, factor: float) -> dict:
    counts = copy.deepcopy(counts)
    of = counts["counts"]["avx512"]
    of[CASE] *= factor
    return counts


def test_a_slow_down_beyond_the_margin_is_named(committed: dict) -> None:
    (found,) = instructions.differences(doctored(committed, 1.04), committed)
    was = committed["counts"]["avx512"][CASE]
    assert found == f"avx512 {CASE}: got {was * 1.04:.1f} instructions an element, committed {was:.1f}: 4.0% more"
    assert not instructions.differences(doctored(committed, 1.02), committed)


def test_a_gain_beyond_the_margin_asks_for_new_counts(committed: dict) -> None:
    (found,) = instructions.differences(doctored(committed, 0.9), committed)
    assert "10.0% fewer: renew them" in found


def test_a_kernel_that_is_not_counted_any_more_is_named(committed: dict) -> None:
    now = copy.deepcopy(committed)
    del now["counts"]["avx2"][CASE]
    (found,) = instructions.differences(now, committed)
    assert found.startswith(f"avx2 {CASE}: got 0.0 instructions")


def test_counts_of_another_compiler_are_not_compared(committed: dict) -> None:
    reason = instructions.comparable({**committed, "compiler": "clang 99.1"}, committed)
    assert reason is not None
    assert reason.startswith("this library is of clang 99")
