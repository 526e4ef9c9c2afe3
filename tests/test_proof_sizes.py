"""The short form of tensors beyond 2**31 elements: views that reach so far, in memory that nobody touches."""

from proof_lines import assert_hold

from proof import sizes


def test_every_line_holds() -> None:
    assert_hold(sizes.run(**sizes.SHORT))
