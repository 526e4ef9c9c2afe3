"""Calls in processes and threads of every kind: forked, spawned, at the first import, interrupted, at the exit."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import loaders, messages
from .children import Outcome, outcomes
from .record import Line
from .trials import tried

SHORT = {"forks": 4, "imports": 3, "interrupts": 4, "exits": 2, "items": 24, "spawned": 1}
LONG = {"forks": 200, "imports": 100, "interrupts": 200, "exits": 50, "items": 2000, "spawned": 2}

PAGE = """\
Calls in forked and in interrupted processes are large enough for four threads, forward and backward; their bits are
compared with those of the process before. A forked child that does not end in a minute is ended and counts as a fault.
Its calls take one thread: libgomp waits there for ever for the threads that its parent had, and torch's own large
operators with it. CPython before 3.14 ends the threads that wait for its lock at the exit, which C++ takes for an
error: a daemon thread that is in a call then aborts the process, whosever operator it is."""


def words(outcome: Outcome) -> list[str]:
    return outcome.said if outcome.ended_well and outcome.said is not None else [str(outcome)]


def in_children(forks: int, imports: int, interrupts: int, exits: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "traced.pt"))
        cases: list[tuple[str, Any]] = [
            ("forks", forks),
            ("interrupts", interrupts),
            ("traced", path),
            ("traced", path),
        ]
        cases += [("first_import", i % 2 == 0) for i in range(2 * imports)]
        cases += [("exits", how) for how in ("at once", "normal", "torch") for _ in range(exits)]
        found = iter(outcomes(tried, cases, 60 + 2 * max(forks, interrupts)))
    same = "the same bits"
    lines = [
        Line.of("forks after threads ran", forks, "children", f"{same}, no hang", words(next(found))),
        Line.of(
            "Ctrl-C in a call", interrupts, "interrupts", f"raised after the call, then {same}", words(next(found))
        ),
    ]
    loaded = [*words(next(found)), *words(next(found))]
    asked = "the same samples; without the package torch names the operator that is missing"
    lines.append(Line.of("torch.jit.trace's artefact in another process", 2, "files", asked, loaded))
    raced = [fault for _ in range(2 * imports) for fault in words(next(found))]
    asked = "each thread's own samples; without the library one warning"
    lines.append(Line.of("eight threads import and call at once", 2 * imports, "processes", asked, raced))
    at_once, normal, torchs = ([next(found) for _ in range(exits)] for _ in range(3))
    faults = [str(outcome) for outcome in at_once if not outcome.ended_well]
    lines.append(Line.of("os._exit while daemon threads are in calls", exits, "processes", "exit status 0", faults))
    ends = [sorted({"well" if outcome.ended_well else str(outcome) for outcome in each}) for each in (normal, torchs)]
    worse = [] if set(ends[0]) <= {*ends[1], "well"} else ends[0]
    asked = f"in no other way than while they are in torch.exp: {', '.join(ends[1])}"
    lines.append(Line.of("the exit while daemon threads are in calls", exits, "processes", asked, worse))
    return [line.printed() for line in lines]


def run(forks: int, imports: int, interrupts: int, exits: int, items: int, spawned: int) -> list[Line]:
    lines = in_children(forks, imports, interrupts, exits)
    checks: list[tuple[str, str, str, Callable[[], tuple[int, list[str]]]]] = [
        (
            "objects through queues of a spawned process",
            "objects",
            "equal, and the same samples",
            messages.through_queues,
        ),
        ("samples in workers of a DataLoader, forked", "items", loaders.ASKED, lambda: loaders.drawn("fork", 2, items)),
        (
            "samples in workers of a DataLoader, spawned",
            "items",
            loaders.ASKED,
            lambda: loaders.drawn("spawn", spawned, items),
        ),
    ]
    for what, unit, asked, check in checks:
        count, faults = check()
        lines.append(Line.of(what, count, unit, asked, faults).printed())
    return lines
