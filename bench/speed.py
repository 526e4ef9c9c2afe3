"""The cases, timed: every formulation through the gate of parity first, and a copy of the logits beside them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from . import formulations, parity, timing
from .cases import Case
from .formulations import Formulation

#: Of the shape at which the law of an eager formulation is tried; a compiled one is tried as it is timed.
TRIED_ROWS, MOST_TRIED_COLUMNS = 3000, 64
TRIED_DRAWS = 10


class Speed:
    """Times cases.

    Args:
        device: where.
        seconds: about how long the formulations of a case take turns.

    Attributes:
        tried: what the gate found, a record for each formulation.
    """

    def __init__(self, device: str = "cpu", seconds: float = 1.5) -> None:
        self.device, self.seconds = device, seconds
        self.tried: list[dict[str, Any]] = []
        self._verdicts: dict[tuple[Any, ...], parity.Parity] = {}

    def measure(self, cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
        """A record for each formulation of each case that passes the gate."""
        before = torch.get_num_threads()
        try:
            for case in cases:
                torch.set_num_threads(case.threads)
                yield from self._case(case)
        finally:
            torch.set_num_threads(before)

    def _case(self, case: Case) -> Iterator[dict[str, Any]]:
        logits, v = case.inputs(self.device)
        torch.compiler.reset()  # what a case before compiled
        calls = {}
        for estimator, who in case.participants():
            formulation = formulations.of(estimator, who, case.draws)
            if who == "ours" or self.admits(case, estimator, who, formulation):
                calls[estimator, who] = pass_of(formulation, logits, v, case.passes)
        target = torch.empty_like(v)
        calls["copy", ""] = lambda: target.copy_(v)
        found = timing.interleaved(calls, timing.clock(self.device, case.threads), self.seconds)
        bandwidth = 2 * case.size() / found.pop(("copy", "")).median
        for (estimator, who), times in found.items():
            yield {
                "section": case.section,
                "estimator": estimator,
                "who": who,
                "rows": case.rows,
                "columns": case.columns,
                "draws": case.draws if estimator in formulations.OF_DRAWS else 1,
                "dtype": case.dtype,
                "passes": case.passes,
                "threads": case.threads,
                "low": times.low,
                "median": times.median,
                "high": times.high,
                "floor": case.moved() / bandwidth,
                "moved": case.moved(),
            }

    def admits(self, case: Case, estimator: str, who: str, formulation: Formulation) -> bool:
        """Whether it has the law and the gradient of ours; tried once, and kept in ``tried``."""
        compiled = who.endswith("compiled")
        rows = case.rows if compiled else TRIED_ROWS
        columns = case.columns if compiled else min(case.columns, MOST_TRIED_COLUMNS)
        draws = case.draws if compiled else min(case.draws, TRIED_DRAWS)
        key = (estimator, who, rows, columns, draws, case.dtype)
        if key not in self._verdicts:
            theirs = formulation if compiled else formulations.of(estimator, who, draws)
            dtype = getattr(torch, case.dtype)
            ours = formulations.of(estimator, "ours", draws)
            verdict = self._verdicts[key] = tried(theirs, ours, rows, columns, dtype, self.device)
            shape = {"rows": rows, "columns": columns, "draws": draws, "dtype": case.dtype}
            figures = {"p": verdict.p, "sigmas": verdict.sigmas, "fault": verdict.fault}
            self.tried.append({"estimator": estimator, "who": who, **shape, **figures})
        return self._verdicts[key].holds


def tried(
    theirs: Formulation, ours: Formulation, rows: int, columns: int, dtype: torch.dtype, device: str
) -> parity.Parity:
    """The gate; what does not run at all does not pass it either."""
    try:
        return parity.check(theirs, ours, rows, columns, dtype=dtype, device=device)
    except Exception as error:  # a peer's or a compiler's fault must not hide the others' figures
        return parity.Parity(0.0, 0.0, f"{type(error).__name__}: {error}".partition("\n")[0][:200])


def pass_of(formulation: Formulation, logits: Tensor, v: Tensor, which: str) -> Callable[[], object]:
    """What a case times."""
    if which == "forward":
        return lambda: formulation(logits)
    if which == "backward":
        sample = formulation(logits)
        return lambda: torch.autograd.grad(sample, logits, v, retain_graph=True)
    return lambda: torch.autograd.grad(formulation(logits), logits, v)
