"""Sampling: the law of what is drawn, noise that nothing shares, and the same bits for any number of threads."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from . import noise
from .calls import Outcome, outcome_of
from .cases import Case
from .laws import Draws, counts, p_values, winners
from .record import Line
from .strategy import CHOICES
from .workers import EMULATED, INTERPRETED, NATIVE, REFERENCE, Raised, caller

#: That a sound library fails the report with any of its tests.
FALSE_ALARM = 1e-6

PAGE = """A law's counts are held to it by chi-squared, categories pooled until ten draws are expected of each, and
its rarest categories (p up to 2e-7) by an exact binomial test; p-values are two-sided, and a report of a sound
library fails once in a million times. Noise is told from what kernels return: with equal logits in float64 a soft
sample is a function of the ratios of its row's noise, so a block of four columns, all of one counter, has a
fingerprint of some 64 bits. Blocks of 10 million counters are sorted and duplicates counted: rows, two blocks of
columns, nine draws, 65 seeds that are neighbours, rows on both sides of 2^32. Triton's interpreter takes
long for a draw, and makes fewest; the emulated GPU makes fewer the longer the rows are. Their samples, and those of
each instruction set, are held to the reference's on the same seeds."""

#: By backend: draws of rows of so many categories; blocks of noise; samples that are held to the reference's. Then the
#: numbers of threads, and the shapes to compare them at.
SHORT: dict[str, Any] = {
    "draws": {
        NATIVE: {2: 10**6, 10: 10**6, 64: 10**5, 8192: 3000},
        REFERENCE: {2: 2 * 10**5, 10: 2 * 10**5, 64: 2 * 10**4, 8192: 300},
        EMULATED: {2: 2 * 10**4, 10: 2 * 10**4, 64: 2000, 8192: 20},
    },
    "blocks": {NATIVE: 2 * 10**5, REFERENCE: 10**5, EMULATED: 10**4, INTERPRETED: 256},
    "compared": {NATIVE: 10**5, EMULATED: 10**4, INTERPRETED: 500},
    "threads": (1, 2, 3),
    "shapes": ((4097, 10), (2, 20_000)),
}
LONG: dict[str, Any] = {
    "draws": {
        NATIVE: {2: 10**8, 10: 10**8, 64: 10**8, 8192: 10**6},
        REFERENCE: {2: 10**8, 10: 10**8, 64: 2 * 10**7, 8192: 2 * 10**5},
        EMULATED: {2: 10**8, 10: 10**7, 64: 10**6, 8192: 10**4},
        INTERPRETED: {2: 10**4, 10: 10**4, 64: 1000, 8192: 20},
    },
    "blocks": {NATIVE: 10**7, REFERENCE: 10**7, EMULATED: 10**7, INTERPRETED: 1000},
    "compared": {NATIVE: 10**7, "cpp AVX2": 10**7, "cpp baseline": 10**7, EMULATED: 10**6, INTERPRETED: 10**4},
    "threads": (1, 2, 3, 4, 8),
    "shapes": ((4097, 10), (300, 200), (64, 8192), (3, 40_000), (1, 200_000)),
}


def run(
    draws: dict[str, dict[int, int]],
    blocks: dict[str, int],
    compared: dict[str, int],
    threads: tuple[int, ...],
    shapes: tuple[tuple[int, int], ...],
) -> list[Line]:
    """So many of each."""
    names = dict.fromkeys((*draws, *blocks, *compared))
    lacking = {name: caller(name).lacking for name in names}
    lines = [
        Line.untried(f"{name}: laws, noise, winners", "draws", "as of the others", why)
        for name, why in lacking.items()
        if why
    ]

    def runs(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        return ((name, count) for name, count in given.items() if not lacking[name])

    lines += of_laws(dict(runs(draws)))
    for name, count in runs(blocks):
        lines += of_noise(name, count)
    lines.append(of_words(max(blocks.values())))
    lines += [of_winners(name, count) for name, count in runs(compared)]
    return [*lines, of_threads(threads, shapes)]


def called(job: Any, argument: Any, name: str) -> Any:
    """A job's answer by a backend. Raises RuntimeError where the job does."""
    caller(name).ask(job, argument)
    answer = caller(name).answer()
    if isinstance(answer, Raised):
        raise RuntimeError(f"{name}: {answer.traceback}")
    return answer


# --- laws -----------------------------------------------------------------------------------------------------------


def plan(counts: dict[int, int]) -> Iterator[Draws]:
    """The rarest categories take all draws; the other laws, paths and dtypes a tenth of them."""
    for columns, count in counts.items():
        yield Draws("tails", columns, count)
        yield Draws("uniform", columns, count // 10)
        yield Draws("skewed", columns, count // 10)
    yield Draws("tails", 2, counts[2], "binary")
    yield Draws("skewed", 2, counts[2] // 10, "binary")
    for path in ("num_draws", "ragged"):
        yield Draws("tails", 10, counts[10] // 10, path)
        yield Draws("skewed", 64, counts[64] // 10, path)
    for dtype in ("float64", "float16", "bfloat16"):
        yield Draws("tails", 10, counts[10] // 10, dtype=dtype)


def of_laws(given: dict[str, dict[int, int]]) -> list[Line]:
    """All tests together fail a sound library once in a million times."""
    found: dict[str, list[float]] = {}
    for name, sizes in given.items():
        found[name] = []
        for draws in plan(sizes):
            found[name] += p_values(draws, called(counts, draws, name))
            print(f"{name}: {draws}: p = {found[name][-1]:.3g}", flush=True)
    tests = sum(map(len, found.values()))
    asked = "chi-squared of each law and exact tests of its tails, two-sided, together failing once in 1e6 when sound"
    return [
        Line(
            f"{name}: laws of 2 to 8192 categories, down to p = 1e-7",
            sum(draws.count for draws in plan(given[name])),
            "draws",
            asked,
            f"least of {len(p)} p-values {min(p):.2g}, of {tests} tests in all",
            min(p) >= FALSE_ALARM / tests,
        )
        for name, p in found.items()
    ]


# --- noise ----------------------------------------------------------------------------------------------------------


def of_noise(name: str, blocks: int) -> list[Line]:
    """Of the kernels: no two rows, draws, blocks of columns or seeds have the same; parts of rows have the whole's."""
    keys = np.concatenate([called(noise.keys, rows, name) for rows in noise.plan(blocks)])
    again = called(noise.keys, noise.plan(blocks)[0], name)
    seen = int(np.isin(again, keys).sum())
    shared = noise.duplicates(keys)
    what = f"{name}: noise of rows, draws, columns and neighbouring seeds, told from soft samples"
    found = f"{shared} shared; of {len(again):,} that are asked for twice, {seen:,} are found"
    rows = min(blocks // 4, 10**5)
    differ = called(noise.parts_differ, rows, name)
    print(f"{what}: {found}", flush=True)
    return [
        Line(what, len(keys), "counters", "none shared", found, shared == 0 and seen == len(again)),
        Line(f"{name}: rows in three parts", rows, "rows", "the whole's bits", f"{differ} elements differ", not differ),
    ]


def of_words(blocks: int) -> Line:
    """Of the layout: the draws that have another meaning too."""
    words = noise.words(blocks)
    shared = noise.duplicates(words)
    what = "words of the layout: the sample's, the draws', those of the order of strata"
    return Line(what, len(words), "words of 64 bits", "none shared", f"{shared} shared", shared == 0)


def of_winners(name: str, count: int) -> Line:
    """In float64, where no rounding decides."""
    differ = total = 0
    for columns in (10, 300):
        draws = Draws("skewed", columns, count * 10 // columns, dtype="float64")
        differ += int((called(winners, draws, name) != called(winners, draws, REFERENCE)).sum())
        total += draws.count
    return Line(f"{name}: samples", total, "draws", "the reference's", f"{differ} differ", differ == 0)


# --- threads --------------------------------------------------------------------------------------------------------


def of_threads(threads: tuple[int, ...], shapes: tuple[tuple[int, int], ...]) -> Line:
    """Every estimator forward and backward, in every form, with so many threads."""
    before, count, differ = torch.get_num_threads(), 0, []
    try:
        for case in calls(shapes):
            found = []
            for number in threads:
                torch.set_num_threads(number)
                found.append(called(outcome_of, case, NATIVE))
            count += len(found) - 1
            differ += [f"{case}" for other in found[1:] if not same_bits(found[0], other)]
    finally:
        torch.set_num_threads(before)
    what = f"Calls of {NATIVE} with {', '.join(map(str, threads[1:]))} threads"
    return Line.of(what, count, "comparisons", f"the bits of {threads[0]} thread, gradients too", differ)


def calls(shapes: tuple[tuple[int, int], ...]) -> Iterator[Case]:
    """Of every estimator at every shape; of the other forms at one of many rows."""
    for estimator, names in CHOICES.items():
        for rows, columns in shapes:
            yield _case("rows", estimator, names, rows, columns)
        for call in ("ragged", "bernoulli", "embedding"):
            yield _case(call, estimator, names, shapes[0][0], 1 if call == "bernoulli" else shapes[0][1])
        yield _case("rows", estimator, names, shapes[0][0] // 4, shapes[0][1], num_draws=5)


def _case(
    call: str, estimator: str, names: tuple[str, ...], rows: int, columns: int, num_draws: int | None = None
) -> Case:
    return Case(
        call=call,
        estimator=estimator,
        arguments={"num_samples": 3} if "num_samples" in names else {},
        of_rows=(),
        shape=(rows,),
        columns=columns,
        dim=0 if call in ("ragged", "bernoulli") else 1,
        dtype="float32",
        layout="contiguous",
        grad_layout="contiguous",
        scale=1.0,
        grad_scale=1.0,
        special=(),
        mask=False,
        hard=True,
        seed=5,
        seeds=1,
        num_draws=num_draws,
        first_row=0,
        contents=rows,
    )


def same_bits(a: Outcome, b: Outcome) -> bool:
    pairs = [(getattr(a, each.name), getattr(b, each.name)) for each in fields(Outcome)]
    return all(x is y or torch.equal(x, y) for x, y in pairs)
