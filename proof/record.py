"""A line of docs/reliability.md: what was tried, how often, what was asked and what came."""

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 3  #: of what did not hold


@dataclass(frozen=True)
class Line:
    """One thing that was tried.

    Args:
        what: in words, as the report has it.
        count: how often it was tried, in ``unit``.
        asked: what had to hold.
        found: what came, with its figures.
        holds: whether it did; None where it could not be tried.
    """

    what: str
    count: int
    unit: str
    asked: str
    found: str
    holds: bool | None

    @classmethod
    def of(cls, what: str, count: int, unit: str, asked: str, faults: Sequence[str]) -> "Line":
        """Of what holds where it was tried and nothing is wrong."""
        return cls(what, count, unit, asked, "; ".join(faults[:SHOWN]) or "so in all", count > 0 and not faults)

    @classmethod
    def untried(cls, what: str, unit: str, asked: str, why: str) -> "Line":
        """Of what this machine lacks something for."""
        return cls(what, 0, unit, asked, f"not tried: {why}", None)

    @property
    def verdict(self) -> str:
        return "not tried" if self.holds is None else "yes" if self.holds else "no"

    def printed(self) -> "Line":
        """Itself, told while the others are still being tried."""
        print(f"{self.what}: {self.count:,} {self.unit}: {self.found}", flush=True)
        return self
