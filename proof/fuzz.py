"""Differential fuzzing: random calls, by every backend that runs on a CPU, held to each other and to what must hold of
any of them.

A failure is shrunk and stays: the smallest call that still fails is written to ``proof/failures``, whose calls are
tried first from then on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from . import strategy
from .agreement import Agreement
from .calls import Outcome, outcome_of
from .cases import FLOATS, LAYOUTS, SPECIAL, Case, contents
from .record import Line
from .workers import INTERPRETED, caller, callers, lacking

ROOT = Path(__file__).parent.parent
FAILURES = Path(__file__).parent / "failures"
PROGRESS = ROOT / "build" / "proof" / "fuzz.jsonl"
BATCH = 500  #: Cases drawn by one seed, the batch's number.
#: The most logits of a call that Triton's interpreter takes too: it takes a thirtieth of a second for one.
INTERPRETED_ELEMENTS = 40

PAGE = """Hypothesis draws a call: estimator, shape, memory layout, dtype, where the categories are, masks, size of
the logits (1e-30 to 1e30) and of the incoming gradient, temperatures (1e-4 to 1e4), number of draws, numbers or one a
row for every parameter, groups of seeds, many draws of a row, ragged rows, binary variables, k distinct categories,
a table, logits that are a product, a part of more rows. Every backend makes it through the public functions, each
instruction set of the CPU in a process of its own; the CUDA kernels on an emulated GPU, another for each call and in
another order of its threads. Rows that meet a table, and ragged ones where a backend has no kernels for them, are cut
into small parts. Triton's interpreter takes a thirtieth of a second for a small call: its calls are others, of at most
40 logits, by all backends.

A sampled index may differ where the uniform is within rounding of a boundary of the CDF (2^-21 of the total, 1e-13 in
float64). An error in a gradient counts as a share of the sum of `|weight| p (|v| + <|q|, |v|>)` over the estimator's
terms, of which the gradient is the sum without the bars: at the logits the row's largest. Allowed are 1e-10 in
float64, 2e-5 in float32, 1e-3 in float16, 8e-3 in bfloat16, as much again where a soft sample in a half type meets a
table, and 1e-15 more for each unit of MVE's temperature; beside it, what a probability below 1e-29 adds (below 1e-38
where an eta or beta above 1e9 is its weight), and the smallest number of the type for each draw. Gumbel-Rao of binary
variables is a quadrature, right to 1e-7 of the largest gradient (1e-12 in float64), however small it is at saturated
logits. Where a term is beyond the largest number of the type (an `eta` of 1e30 with an incoming gradient of 1e30,
say) a gradient may be inf or NaN: such rows are counted, not compared.

The factors of logits that are a product are small integers times a power of 2, so that every dtype has the product
without rounding, however it is added up: all backends draw from the same logits. An error in the gradient at a factor
counts as a share of the magnitudes at the logits, multiplied with those of the other factor; a rounding to the type
for each draw is allowed beside what is at the logits. Of k categories a draw is compared where the draws before it
are alike, and the sample has a one for each, k or as many as are not masked."""

#: Of processes, 0 is this one alone.
SHORT = {"cases": 150, "interpreted": 25, "processes": 0}
LONG = {"cases": 20_000, "interpreted": 20_000, "processes": 2}


@dataclass(frozen=True)
class Batch:
    """Cases that one seed draws."""

    number: int
    cases: int
    interpreted: bool  # whether Triton's interpreter is one of the backends


@dataclass
class Totals:
    """What was tried.

    Args:
        kinds: cases, by what is told of them.
        compared: what :class:`Agreement` counts.
        worst: the largest error, as a share of what is allowed.
        failures: what does not hold, of a batch's smallest case.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Totals") -> None:
        self.kinds.update(other.kinds)
        self.compared.update(other.compared)
        self.worst = max(self.worst, other.worst)
        self.failures += other.failures


OPTIONS: dict[str, Callable[[Case], Any]] = {
    "a mask": lambda case: case.mask,
    "soft": lambda case: not case.hard,
    "parameters of each row": lambda case: case.of_rows,
    "sample_tau": lambda case: "sample_tau" in case.arguments,
    "groups of seeds": lambda case: case.seeds > 1,
    "num_draws": lambda case: case.num_draws,
    "stratified draws": lambda case: case.arguments.get("draws") == "stratified",
    "another dim than the last": lambda case: case.dim < len(case.shape) and case.call not in ("ragged", "bernoulli"),
    "no rows": lambda case: case.rows == 0,
    "tau below 0.01 or above 100": lambda case: not 0.01 <= case.arguments.get("tau", 1.0) <= 100,
    "logits below 1e-10 or above 1e10": lambda case: not 1e-10 <= case.scale <= 1e10,
}
#: What the report counts, each of which many calls have to have tried.
KINDS: dict[str, Collection[str]] = {
    "estimator": strategy.CHOICES,
    "dtype": FLOATS,
    "call": dict.fromkeys(strategy.CALLS),
    "memory": LAYOUTS[1:],
    "rows": SPECIAL,
    "options": OPTIONS,
}


# --- one case -------------------------------------------------------------------------------------------------------


def names(interpreted: bool) -> list[str]:
    """The backends that run here."""
    return [name for name in callers() if interpreted or name != INTERPRETED]


def faults(case: Case, totals: Totals, interpreted: bool = True) -> list[str]:
    """What does not hold of a case."""
    among = [caller(name) for name in names(interpreted)]
    for each in among:
        each.ask(outcome_of, case)
    agreement = Agreement(case, contents(case))
    answers = {each.name: each.answer() for each in among}
    outcomes = {name: answer for name, answer in answers.items() if isinstance(answer, Outcome)}
    if len(outcomes) < len(answers):
        return [f"{name} raised: {raised.traceback}" for name, raised in answers.items() if name not in outcomes]
    found = [f"{name}: {fault}" for name, outcome in outcomes.items() for fault in agreement.faults(outcome)]
    found += agreement.differences(outcomes)
    totals.kinds.update(kinds(case))
    totals.compared.update(agreement.counts)
    totals.worst = max(totals.worst, agreement.worst)
    return found


def kinds(case: Case) -> Iterator[str]:
    """Of KINDS, those that a case is of."""
    yield "calls"
    yield f"estimator: {case.estimator}"
    yield f"dtype: {case.dtype}"
    yield f"call: {case.call}"
    for name in {case.layout, case.grad_layout} - {"contiguous"}:
        yield f"memory: {name}"
    for name in case.special:
        yield f"rows: {name}"
    yield from (f"options: {name}" for name, is_given in OPTIONS.items() if is_given(case))


# --- many -----------------------------------------------------------------------------------------------------------


def tried(batch: Batch) -> Totals:
    """Draw a batch's cases and try them, until one fails; then find the smallest that does."""
    totals = Totals()
    failing: list[tuple[Case, list[str]]] = []

    @seed(2 * batch.number + batch.interpreted)
    @settings(
        max_examples=batch.cases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy.cases(INTERPRETED_ELEMENTS) if batch.interpreted else strategy.cases())
    def attempt(case: Case) -> None:
        found = faults(case, Totals() if failing else totals, batch.interpreted)
        if found:
            failing[:] = [(case, found)]
            raise AssertionError(found[0])

    try:
        attempt()
    except AssertionError:
        case, found = failing[-1]  # the last that hypothesis tries is the smallest
        totals.failures.append(f"{kept(case)}: {'; '.join(found)}")
    return totals


def kept(case: Case) -> str:
    """Write a case where it is tried first from now on; its file's name."""
    FAILURES.mkdir(exist_ok=True)
    text = case.written() + "\n"
    path = FAILURES / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text)
    return path.name


def tried_again() -> Totals:
    """The cases that have failed before."""
    totals = Totals()
    for path in sorted(FAILURES.glob("*.json")):
        found = faults(Case.read(path.read_text()), totals)
        if found:
            totals.failures.append(f"{path.name}: {'; '.join(found)}")
    return totals


def run(cases: int, interpreted: int, processes: int) -> list[Line]:
    """So many cases without and with Triton's interpreter, in batches; those that these sources have passed are not
    repeated."""
    lines = [_line("Calls that have failed before, tried again", tried_again())]
    for with_triton, count in ((False, cases), (True, interpreted)):
        if with_triton and INTERPRETED not in callers():
            continue
        batches = [Batch(n, min(BATCH, count - n * BATCH), with_triton) for n in range(-(-count // BATCH))]
        total = Totals()
        for batch, totals in _in_order(batches, processes):
            total.add(totals)
            print(f"{total.kinds['calls']:,} of {count:,} calls, {', '.join(names(with_triton))}", flush=True)
            for failure in totals.failures:
                print(f"batch {batch.number}: {failure}", flush=True)
        lines.append(_line(f"Calls, by {', '.join(names(with_triton))}", total))
        lines += _coverage(total, " (Triton too)" if with_triton else "") if count >= BATCH else []
    return lines + [Line.untried(f"Calls, by {name}", "calls", "as the others", why) for name, why in lacking().items()]


def _in_order(batches: list[Batch], processes: int) -> Iterable[tuple[Batch, Totals]]:
    if not processes:
        yield from ((batch, tried(batch)) for batch in batches)
        return
    done = dict(_passed())
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = {batch: pool.submit(tried, batch) for batch in batches if batch not in done}
        for batch in batches:
            totals = done.get(batch) or found[batch].result()
            if batch not in done:
                _record(batch, totals)
            yield batch, totals


def _passed() -> Iterator[tuple[Batch, Totals]]:
    """Batches that went through with the sources as they are."""
    for text in PROGRESS.read_text().splitlines() if PROGRESS.exists() else ():
        record = json.loads(text)
        if record["sources"] == _sources():
            kinds, compared = Counter(record["kinds"]), Counter(record["compared"])
            yield Batch(**record["batch"]), Totals(kinds, compared, record["worst"])


def _record(batch: Batch, totals: Totals) -> None:
    if totals.failures:
        return
    PROGRESS.parent.mkdir(parents=True, exist_ok=True)
    record = {"sources": _sources(), "batch": asdict(batch), **vars(totals)}
    with PROGRESS.open("a") as file:
        file.write(json.dumps(record) + "\n")


@cache
def _sources() -> str:
    """Of all that decides what comes out."""
    digest = hashlib.sha256(f"torch {torch.__version__}, hypothesis {hypothesis.__version__}".encode())
    ours = ("agreement", "calls", "cases", "magnitudes", "strategy", "workers")
    files = ["discrete_ops/*.py", "triton_kernels/*.py", "discrete_ops/libdiscrete_ops_cpu.so"]
    for pattern in (*files, *(f"proof/{name}.py" for name in ours), "csrc/**/*.*", "tests/cuda_emul*"):
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


# --- the report -----------------------------------------------------------------------------------------------------


def _line(what: str, totals: Totals) -> Line:
    compared = totals.compared
    words = (
        f"{compared['pairs']:,} comparisons of two backends",
        f"{compared['draws']:,} draws, {compared['ties']} on another side of a boundary that rounding moves",
        f"gradients of {compared['rows']:,} rows, {compared['overflowing rows']:,} with terms beyond the type",
        f"largest error {totals.worst:.2f} of what is allowed",
    )
    found = "; ".join(totals.failures or words)
    asked = "same indices, gradients in tolerance, no NaN that did not come in, rows one-hot; every pair of backends"
    return Line(what, totals.kinds["calls"], "calls", asked, found, not totals.failures)


def _coverage(totals: Totals, of: str) -> list[Line]:
    """What the calls were."""
    lines = []
    for head, each in KINDS.items():
        counted = sorted(((totals.kinds[f"{head}: {name}"], name) for name in each), reverse=True)
        found = ", ".join(f"{name} {count:,}" for count, name in counted)
        asked, holds = f"each of {len(counted)} at least once", all(count for count, _ in counted)
        lines.append(Line(f"of them, {head}{of}", totals.kinds["calls"], "calls", asked, found, holds))
    return lines
