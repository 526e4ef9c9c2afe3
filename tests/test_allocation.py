"""Out of memory raises: the short form of proof.allocation."""

import pytest
from proof_lines import assert_hold

from proof import allocation


def test_memory_that_runs_out_raises_and_leaves_nothing_behind() -> None:
    lines = allocation.run(**allocation.SHORT)
    assert_hold(lines)
    assert all("raised" in line.found for line in lines)


def test_a_process_that_ends_is_a_fault_and_the_next_one_goes_on_behind_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    if reason := allocation.obstacle():
        pytest.skip(f"NOT COVERED: {reason}")
    child = tmp_path / "calls.py"
    child.write_text(
        "import json, sys\n"
        "done = json.loads(sys.argv[-1])[2]\n"
        "if not done:\n"
        "    print(json.dumps({'case': 'calls: x', 'at': 1}), flush=True)\n"
        "    sys.exit('killed')\n"
        "assert done == [['calls: x', 1]]\n"
        "print(json.dumps({'case': 'calls: x', 'at': 2, 'ours': True, 'outcome': 'raised', 'said': 'no words'}))\n"
    )
    monkeypatch.setattr(allocation, "CALLS", [str(child)])
    _, line, _ = allocation.run(**allocation.SHORT)
    assert line.count == 2
    assert not line.holds
    assert line.found == "1 ended with 1, 1 raised; first: calls: x, 1: ended with 1: killed"
