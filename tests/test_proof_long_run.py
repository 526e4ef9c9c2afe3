"""The short form of many calls in one process."""

from proof_lines import assert_hold

from proof import long_run


def test_every_line_holds(fresh_dynamo: None) -> None:
    assert_hold(long_run.run(**long_run.SHORT))
