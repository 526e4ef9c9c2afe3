"""Out of memory raises, names what was wanted, and leaves nothing behind."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from discrete_ops import backends

from .record import Line

PAGE = """\
Each call runs forward and backward in a process whose `malloc` fails when it is told to. First every single allocation
of the kernels' operators fails once, of any size and in any thread: workspaces, outputs, what torch takes around them.
Then every allocation of 4 KiB or more of whole calls: what is smaller is torch's own, whose autograd does not survive
it in a plain softmax either. Then the address space itself ends, at limits from too little to enough. Each time the
call raises or is right, and the next one is right.
"""

SHORT = {"estimators": ("mve",), "limits": 1}
LONG = {
    "estimators": (
        *("straight_through", "gumbel_rao", "stratified_gumbel_rao", "gst", "gst_pi", "reinmax", "reinmax_argmax"),
        *("reinmax_rao", "reinmax_cv", "reinmax_cv_gumbel", "reinmax_rk2", "mix", "mve"),
    ),
    "limits": 4,
}
HERE = Path(__file__).parent
CALLS = ["-m", "proof.allocation_calls"]
#: What a message has that names what was wanted.
NAMES_IT = ("bytes: out of memory", "you tried to allocate")

ASKED = "the call raises and names the bytes, or is right without; the next one is right"
#: How the lines call what runs out: allocation_calls.KINDS.
WHAT = {
    "operators": "every allocation of a kernel's operator fails once",
    "calls": "every allocation of 4 KiB or more of a call fails once",
    "limits": "the address space ends in a call",
}


def obstacle() -> str | None:
    """Why no memory can run out here, or None."""
    if "cpp" not in backends.available_backends():
        return "no compiled library"
    if platform.libc_ver()[0] != "glibc":
        return "no glibc, whose malloc is replaced"
    return None if shutil.which("c++") else "no C++ compiler, for a malloc that fails"


def run(estimators: tuple[str, ...], limits: int) -> list[Line]:
    if reason := obstacle():
        return [Line.untried(what, "points", ASKED, reason) for what in WHAT.values()]
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory, "failing_malloc.so")
        flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run(["c++", *flags, str(HERE / "failing_malloc.cpp")], check=True)
        points = list(_points(library, estimators, limits))
    return [_line(kind, [point for point in points if point["case"].startswith(kind)]) for kind in WHAT]


def _line(kind: str, points: list[dict]) -> Line:
    faults = [fault for point in points if (fault := _fault(point))]
    outcomes = Counter(point["outcome"] for point in points).most_common()
    found = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes)
    print(f"{WHAT[kind]}: {len(points):,} points: {found}", *faults, sep="\n", flush=True)
    if faults:
        found += f"; first: {faults[0]}"
    return Line(WHAT[kind], len(points), "points", ASKED, found, bool(points) and not faults)


def _fault(point: dict) -> str | None:
    where = f"{point['case']}, {point['at']}"
    if point["outcome"] not in ("raised", "right"):
        return f"{where}: {point['outcome']}: {point['said']}"
    if point["ours"] and not any(words in point["said"] for words in NAMES_IT):
        return f"{where}: its message names no bytes: {point['said']}"
    return None


def _points(library: Path, estimators: tuple[str, ...], limits: int) -> Iterator[dict]:
    """What came at each point. A process that ends there is one of them, and another one goes on without it."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "2"}
    done: list[list] = []
    while True:
        command = [sys.executable, *CALLS, json.dumps([estimators, limits, done])]
        child = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True)
        begun = None
        for line in child.stdout.splitlines():
            point = json.loads(line)
            begun = None if "outcome" in point else point
            if begun is None:
                yield point
            done.append([point["case"], point["at"]])
        if child.returncode == 0:
            return
        if begun is None:
            raise RuntimeError(f"proof.allocation_calls ended with {child.returncode}: {child.stderr[-2000:]}")
        yield begun | {"outcome": f"ended with {child.returncode}", "said": child.stderr.strip()[-300:], "ours": True}
