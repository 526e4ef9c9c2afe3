"""Counting what was tried: each case as it comes, and what did not hold of it."""

from .record import SHOWN, Line


class Tally:
    """One line of the report while it is being filled.

    Args:
        what, unit, asked: as of :class:`Line`.
    """

    def __init__(self, what: str, unit: str, asked: str) -> None:
        self.what, self.unit, self.asked = what, unit, asked
        self.count = 0
        self.wrong: list[str] = []

    def note(self, case: str, *wrong: str) -> None:
        """One more case, with what did not hold of it."""
        self.count += 1
        if wrong:
            self.wrong.append(f"{case}: {', '.join(wrong)}")
            print(f"{self.what}: {self.wrong[-1]}", flush=True)

    def line(self, found: str) -> Line:
        """With ``found`` in words, if all held."""
        held = f"{self.count - len(self.wrong)} of {self.count}"
        told = found if not self.wrong else " | ".join(self.wrong[:SHOWN])
        holds = self.count > 0 and not self.wrong
        return Line(self.what, self.count, self.unit, self.asked, f"{held}: {told}", holds).printed()
