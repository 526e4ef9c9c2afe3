"""The same formulations under pytest-benchmark, for work on one of them: groups to compare, runs to save and compare.

python -m pytest bench -k "gst and 3000x10" --benchmark-compare

pytest-benchmark finishes one formulation before it starts the next, so that what the machine does meanwhile is in their
ratio; the report takes turns (``timing.py``). Both take their cases from ``cases.py``.
"""

import pytest
import torch

from . import formulations, speed
from .cases import Case, table

CASES = [case for case in table(full=False, threads=2) if case.section in ("peers", "shapes", "passes", "threads")]
GATE = speed.Speed()
EAGER = [
    (case, estimator, who)
    for case in CASES
    for estimator, who in case.participants()
    if "compiled" not in who and case.rows < 2**20
]


def name(value: object) -> str:
    if isinstance(value, Case):
        return f"{value.section}-{value.rows}x{value.columns}-{value.passes}-{value.threads}"
    return str(value)


@pytest.mark.parametrize(("case", "estimator", "who"), EAGER, ids=name)
def test_speed(benchmark, case: Case, estimator: str, who: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    benchmark.group = f"{estimator}, {name(case)}"
    logits, v = case.inputs("cpu")
    formulation = formulations.of(estimator, who, case.draws)
    call = speed.pass_of(formulation, logits, v, case.passes)
    try:
        assert who == "ours" or GATE.admits(case, estimator, who, formulation), GATE.tried[-1]["fault"]
        for _ in range(3):  # the first calls import, allocate and start threads
            call()
        benchmark(call)
    finally:
        torch.set_num_threads(before)
