"""A run's directory: two commands in it at once, no right to write, moved; what is on disk when, and who lives on."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from tasks.common.cells import Cells

from . import rights, tiny_runs
from .record import Line
from .tally import Tally
from .tiny_runs import TRAIN, Process

ROOT = Path(__file__).parents[1]
#: Writes a file twice, as every checkpoint and table is written.
WRITE = """
import sys
from pathlib import Path
from tasks.common import files
for text in "one", "two":
    files.write_text(Path(sys.argv[1]), text)
"""
#: Two processes that are given jobs.
JOBS = """
import time
from tasks.common import workers
if __name__ == "__main__":
    for _ in workers.finished(time.sleep, (60, 60), 2):
        pass
"""


def run(commands: int, cells: int, writes: int) -> list[Line]:
    tiny_runs.warm()
    with TemporaryDirectory() as folder:
        return [
            _at_once(Path(folder), commands),
            _read_only(Path(folder)),
            _moved(Path(folder)),
            _cells(Path(folder) / "cells.json", cells),
            _order(Path(folder), writes),
            _workers(Path(folder)),
        ]


def _at_once(folder: Path, count: int) -> Line:
    """So many commands in a directory where one is at work."""
    tally = Tally(
        "Two commands in one run's directory at once",
        "commands",
        "the second ends with status 1 and says that another is at work there; the first ends as it does alone",
    )
    for task, longest in TRAIN.items():
        command = longest.longer("--epochs=3")
        whole, out = folder / f"{task}-alone", folder / f"{task}-shared"
        tiny_runs.succeed(command, whole)
        first = Process(command, out, partial(_stop_at, out / "checkpoint.pt"))
        os.waitid(os.P_PID, first.id, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for number in range(count):
            status, text = tiny_runs.run(command, out)
            is_told = status == 1 and f"error: {out}: another process is at work there" in text
            tally.note(f"{task}, command {number + 2}", *([] if is_told else [f"status {status}: {text[-300:]}"]))
        first.signal(signal.SIGCONT)
        status, text = first.end()
        wrong = [f"status {status}: {text[-300:]}"] if status else []
        wrong += [f"{name} differs" for name in tiny_runs.differing(tiny_runs.ending(out), tiny_runs.ending(whole))]
        tally.note(f"{task}, the first", *wrong)
    return tally.line(f"{count} commands beside the first of each task")


def _stop_at(path: Path) -> None:
    """In the process of a command: stop before this file is there."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]) == str(path) and not path.exists():
            os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)


def _read_only(folder: Path) -> Line:
    tally = Tally(
        "A run's directory without the right to write",
        "commands",
        "status 1 and one line that names the directory and ends with the cause; with the right the run goes on",
    )
    for task, command in TRAIN.items():
        out = folder / f"{task}-read-only"
        tiny_runs.succeed(command.longer("--epochs=1"), out)
        longer = command.longer("--epochs=2")
        out.chmod(0o555)
        status, text = tiny_runs.run(longer, out, rights.give_up)
        is_told = re.search(rf"^error: out: got {out}, .* cannot be written \(Permission denied\)$", text, re.MULTILINE)
        out.chmod(0o755)
        tally.note(f"{task}, without", *([] if status == 1 and is_told else [f"status {status}: {text[-300:]}"]))
        status, text = tiny_runs.run(longer, out, rights.give_up)
        is_on = status == 0 and "resumed at epoch 2 of 2" in text
        tally.note(f"{task}, with", *([] if is_on else [f"status {status}: {text[-300:]}"]))
    return tally.line("both tasks, without the right and then with it")


def _moved(folder: Path) -> Line:
    tally = Tally("A run's directory moved", "runs", "the run goes on there, and ends as one that was not moved")
    for task, command in TRAIN.items():
        whole, out, moved = (folder / f"{task}-{name}" for name in ("unmoved", "here", "there"))
        for each in (whole, out):
            tiny_runs.succeed(command.longer("--epochs=2"), each)
        shutil.move(out, moved)
        longer = command.longer("--epochs=4")
        tiny_runs.succeed(longer, whole)
        status, text = tiny_runs.run(longer, moved)
        wrong = [] if status == 0 and "resumed at epoch 3 of 4" in text else [f"status {status}: {text[-300:]}"]
        wrong += [f"{name} differs" for name in tiny_runs.differing(tiny_runs.ending(moved), tiny_runs.ending(whole))]
        tally.note(task, *wrong)
    return tally.line("both tasks")


def _cells(path: Path, count: int) -> Line:
    """What two commands have computed, each in turn."""
    tally = Tally(
        "Figures that are computed once, by two commands at once",
        "figures",
        "all of both are kept; with other settings none is taken",
    )
    both = [Cells(path, {"draws": 1}) for _ in range(2)]
    for number in range(count):
        both[number % 2].add({str(number): number})
        wrong = [] if len(Cells(path, {"draws": 1}).cells) == number + 1 else ["one is lost"]
        wrong += ["taken with other settings"] if Cells(path, {"draws": 2}).cells else []
        tally.note(str(number), *wrong)
    return tally.line("by turns, the file read anew after each")


def _order(folder: Path, count: int) -> Line:
    """What a power cut finds: system calls, in their order."""
    tally = Tally(
        "Order of what is written when a file takes another's place",
        "writes",
        "the data on disk (fsync), then the rename, then the folder on disk (fsync)",
    )
    if reason := _no_strace():
        return Line.untried(tally.what, tally.unit, tally.asked, reason)
    path = folder / "file"
    for number in range(count):
        tracing = ("strace", "-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2")
        arguments = (*tracing, sys.executable, "-c", WRITE, str(path))
        traced = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
        calls = re.findall(rf"(fsync|rename)\w*\(.*?({re.escape(str(folder))}[^\">]*)", traced.stderr)
        temporary = str(path.with_name(".file.tmp"))
        wanted = [("fsync", temporary), ("rename", temporary), ("fsync", str(folder))] * 2
        wrong = [] if calls == wanted else [f"{calls}: {traced.stderr[-300:]}"]
        tally.note(f"write {number}", *wrong)
    return tally.line("fsync of the file, rename, fsync of the folder; by strace")


def _no_strace() -> str:
    """Why system calls cannot be seen here: a container may forbid it."""
    if shutil.which("strace") is None:
        return "no strace"
    done = subprocess.run(("strace", "-f", "-o", os.devnull, sys.executable, "-c", ""), capture_output=True, text=True)
    return f"strace may not trace: {done.stderr.strip()[-200:]}" if done.returncode else ""


def _workers(folder: Path) -> Line:
    """SIGKILL of a command alone, whose processes it can no longer stop."""
    tally = Tally("A command with worker processes killed alone", "commands", "its processes end within 20 s")
    script = folder / "jobs.py"
    script.write_text(JOBS)
    arguments = [sys.executable, str(script)]
    with subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + 60
        while len(children := _workers_of(command.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # for the jobs to begin
        command.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    wrong = [f"{len(children)} processes began"] if len(children) < 2 else []
    wrong += [f"{len(alive)} processes live on"] if alive else []
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    tally.note("two processes", *wrong)
    return tally.line("two processes, each with a job of a minute")


def _workers_of(command: int) -> list[psutil.Process]:
    """Without multiprocessing's own, which ends with its last user."""
    found = psutil.Process(command).children()
    return [each for each in found if "spawn_main" in " ".join(each.cmdline())]
