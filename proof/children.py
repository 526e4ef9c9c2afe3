"""Interpreters to try things in: each is ended by whatever ends it, and none is waited for longer than it may take.

They are forked from one that has imported torch, which takes over a second, and what the function's module imports:
``python -m proof.children module.function seconds`` reads a JSON list of cases, and prints a list of their outcomes.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Args:
        said: what its function returned, of JSON's types; None where it did not get so far.
        error: else its exception, in words.
        status: the exit status; negative, the signal that ended it.
        hung: whether it had to be ended.
    """

    said: Any
    error: str
    status: int
    hung: bool

    @property
    def ended_well(self) -> bool:
        return self.status == 0 and not self.hung and not self.error

    def __str__(self) -> str:
        if self.hung:
            return "did not end"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        return self.error or f"exit status {self.status}, {self.said}"


def outcomes(function: Callable[[Any], Any], cases: Sequence[Any], seconds: float = 60) -> list[Outcome]:
    """Of a module's function on each of the cases, in a child each, one after the other."""
    name = f"{function.__module__}.{function.__qualname__}"
    command = [sys.executable, "-m", "proof.children", name, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(cases), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: the children's parent ended with {done.returncode}, see above")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout.splitlines()[-1])]


def outcome(function: Callable[[Any], Any], case: Any, seconds: float) -> Outcome:
    """Of one case, in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(function, case, writing)
    os.close(writing)
    until, parts, hung = time.monotonic() + seconds, [], False
    while not hung:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        part = os.read(reading, 65536) if ready else b""
        if ready and not part:
            break
        parts.append(part)
        hung = not ready
    os.close(reading)
    status = 0
    while not hung:  # it has said what it had to, and ends
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        hung = time.monotonic() > until
        time.sleep(0.002)
    if hung:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said, error = json.loads(b"".join(parts) or "[null, null]") if not hung else (None, "")
    return Outcome(said, error or "", os.waitstatus_to_exitcode(status), hung)


def _be_child(function: Callable[[Any], Any], case: Any, writing: int) -> None:
    """Ends at once; one whose function calls ``sys.exit`` as an interpreter does, which takes half a second."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1), os.dup2(nowhere, 2)
    said, error, ends_itself = None, None, False
    try:
        said = function(case)
    except SystemExit:
        ends_itself = True
    except BaseException as raised:  # told to the parent
        error = "".join(traceback.format_exception_only(raised)).strip()
    with os.fdopen(writing, "w") as pipe:
        json.dump([said, error], pipe)
    if ends_itself:
        sys.exit(0)
    os._exit(0)


def main() -> None:
    importlib.import_module("torch.fx.experimental.symbolic_shapes")  # and torch; what its first gradient takes

    name, seconds = sys.argv[1:]
    module, _, function = name.rpartition(".")
    called, cases = getattr(importlib.import_module(module), function), json.load(sys.stdin)
    found = []
    for number, case in enumerate(cases, 1):
        found.append(asdict(outcome(called, case, float(seconds))))
        if number % 50 == 0:
            print(f"{name}: {number} of {len(cases)} children", file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
