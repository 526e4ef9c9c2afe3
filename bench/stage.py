"""A stage of a verification: one process with a limit of its own, whose failure hides no other stage's outcome."""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent


class Stage(NamedTuple):
    command: list[str]
    limit: float  # seconds
    environment: dict[str, str] = {}  # noqa: RUF012  (never changed)


def run(name: str, stage: Stage, log: Path) -> dict[str, Any]:
    """Run one; say whether it passed, its time, and where it did not pass, why.

    ``covered`` is false where the machine lacks what the stage needs: that is no failure, and no pass.
    """
    began = time.monotonic()
    outcome: dict[str, Any] = {"passed": False, "covered": True}
    if stage.limit <= 0:
        outcome["reason"] = "NOT RUN: the time of all stages is used up"
    elif shutil.which(stage.command[0]) is None:
        outcome |= {"covered": False, "reason": f"NOT COVERED: {stage.command[0]} is not installed"}
    else:
        try:
            status = _limited(stage, log)
            outcome["passed"] = status == 0
            outcome["said"] = last_line(log)
            if status is None:
                outcome["reason"] = f"took longer than {stage.limit:.0f} s; last line: {last_line(log)}"
            elif status == 5 and "pytest" in stage.command:
                outcome |= {"covered": False, "reason": f"NOT COVERED: no test ran: {last_line(log)}"}
            elif status:
                outcome["reason"] = f"exit status {status}: {last_line(log)}"
        except OSError as error:
            outcome["reason"] = f"{type(error).__name__}: {error}"
    outcome["seconds"] = round(time.monotonic() - began, 1)
    said = outcome.get("reason") or outcome.get("said", "")
    print(f"{name}: {verdict(outcome)} in {outcome['seconds']} s  {said}"[:200], flush=True)
    return outcome


def _limited(stage: Stage, log: Path) -> int | None:
    """The exit status, or None where the limit came first. Nothing that the stage started outlives it."""
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
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def verdict(outcome: dict[str, Any]) -> str:
    return "passed" if outcome["passed"] else "FAILED" if outcome["covered"] else "not covered"


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def pack(logs: Path, archive: Path) -> None:
    """Every log so far in one file, whole at any moment."""
    unfinished = archive.with_name(f"{archive.name}.new")
    with tarfile.open(unfinished, "w:gz") as file:
        for log in sorted(logs.glob("*.log")):
            file.add(log, log.name)
    os.replace(unfinished, archive)
