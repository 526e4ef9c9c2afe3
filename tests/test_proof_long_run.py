"""The short form of many calls in one process."""

from proof import long_run


def test_every_line_holds(fresh_dynamo: None) -> None:
    assert [line for line in long_run.run(**long_run.SHORT) if not line.holds] == []
