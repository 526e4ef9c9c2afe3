"""A line of docs/reliability.md: what was tried, how often, what was asked and what came."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One thing that was tried.

    Args:
        what: in words, as the report has it.
        count: how often it was tried, in ``unit``.
        asked: what had to hold.
        found: what came, with its figures.
        holds: whether it did.
    """

    what: str
    count: int
    unit: str
    asked: str
    found: str
    holds: bool
