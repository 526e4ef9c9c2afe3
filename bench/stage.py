"""A stage of a verification: one process with a limit of its own, whose failure hides no other stage's outcome."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
GRACE = 2.0  #: seconds to wait for a stage that was asked to end, and for one that was killed
#: What a profiler, a sanitizer or tests for a GPU say where the machine does not let them work.
UNUSABLE = (
    r"ERR_NVGPUCTRPERM|Failed to initialize the profiler|[Dd]evice (is )?not supported"
    r"|NOT COVERED: (no GPU|.*of which there is none)"
)


class Stage(NamedTuple):
    command: list[str]
    limit: float  # seconds
    environment: dict[str, str] = {}  # noqa: RUF012  (never changed)
    proof: str = ""  # what the log must hold: an exit status of 0 may come of nothing done


def run(name: str, stage: Stage, log: Path) -> dict[str, Any]:
    """Run one; say whether it passed, its time, and where it did not pass, why.

    ``covered`` is false where the machine lacks what the stage needs: no failure, and no pass.
    """
    began = time.monotonic()
    outcome: dict[str, Any] = {"passed": False, "covered": True}
    if stage.limit <= 0:
        outcome["reason"] = "NOT RUN: the time of all stages is used up"
    elif shutil.which(stage.command[0]) is None:
        outcome |= {"covered": False, "reason": f"NOT COVERED: {stage.command[0]} is not installed"}
    else:
        try:
            outcome |= _judge(stage, _limited(stage, log), log)
        except OSError as error:
            outcome["reason"] = f"{type(error).__name__}: {error}"
    outcome["seconds"] = round(time.monotonic() - began, 1)
    tell(name, outcome)
    if outcome["covered"] and not outcome["passed"] and log.exists():
        print("".join(f"    {line}\n" for line in _lines(log)[-20:]), end="", flush=True)
    return outcome


def tell(name: str, outcome: dict[str, Any]) -> None:
    said = outcome.get("reason") or outcome.get("said", "")
    print(f"{name}: {verdict(outcome)} in {outcome['seconds']} s  {said}"[:300], flush=True)


def _judge(stage: Stage, status: int | None, log: Path) -> dict[str, Any]:
    said, text = last_line(log), log.read_text(errors="replace")
    proved, unusable = re.search(stage.proof, text), re.search(UNUSABLE, text)
    if status == 0 and proved:
        return {"passed": True, "said": said}
    if status is None:
        return {"reason": f"took longer than {stage.limit:.0f} s; last line: {said}"}
    if unusable and not proved:
        return {"covered": False, "reason": f"NOT COVERED: the stage says {unusable.group()!r}"}
    return {"reason": f"exit status {status}: {said}" if status else f"its log has no {stage.proof!r}: {said}"}


def _limited(stage: Stage, log: Path) -> int | None:
    """The exit status, or None where the limit came first. Nothing of the stage's process group outlives it."""
    with log.open("w") as file:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, **stage.environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(stage.limit)
        except subprocess.TimeoutExpired:
            _end(process, signal.SIGTERM)
            return None
        finally:
            _end(process, signal.SIGKILL)


def _end(leader: subprocess.Popen[bytes], number: int) -> None:
    """Signal the group and wait a little: one that hangs inside a driver may take its time, even to be killed."""
    with contextlib.suppress(ProcessLookupError):  # the whole group has ended
        os.killpg(leader.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(GRACE)


def verdict(outcome: dict[str, Any]) -> str:
    return "passed" if outcome["passed"] else "FAILED" if outcome["covered"] else "not covered"


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def last_line(log: Path) -> str:
    return _lines(log)[-1][:300] if _lines(log) else ""


def pack(logs: Path, archive: Path) -> None:
    """Every log so far in one file, whole at any moment."""
    unfinished = archive.with_name(f"{archive.name}.new")
    with tarfile.open(unfinished, "w:gz") as file:
        for log in sorted(logs.glob("*.log")):
            file.add(log, log.name)
    os.replace(unfinished, archive)
