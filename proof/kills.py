"""SIGKILL at random moments, before each file operation and inside the writing of a file; then the same command."""

import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.common import checkpoint
from tasks.common.errors import RunError

from . import tiny_runs
from .record import Line
from .tally import Tally
from .tiny_runs import COMMANDS, Command, Process

ASKED = (
    "the same command goes on, says from where, loses one interval between checkpoints at most, and leaves the files "
    "of a run that was not killed, bit by bit"
)
#: What the interpreter tells of file operations, and which of their arguments are paths.
OPERATIONS = {"open": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.truncate": (0,)}


def at_random(name: str, count: int, seed: int) -> Line:
    """At moments that are uniform over the time that the command takes."""
    command, moments = COMMANDS[name], random.Random(seed)
    tally = Tally(f"{command.name}: killed at a random moment", "kills", ASKED)
    found = Resumptions()
    with TemporaryDirectory() as folder:
        whole, seconds = _whole(command, Path(folder) / "whole")
        while tally.count < count:
            out = Path(folder) / "run"  # in a place of one name each time
            moment = moments.uniform(0, seconds)
            process = Process(command, out)
            time.sleep(moment)
            process.signal(signal.SIGKILL)
            if process.end()[0] == -signal.SIGKILL:  # or it was done before
                _resume(command, out, whole, tally, f"after {moment:.3f} s", found)
            shutil.rmtree(out, ignore_errors=True)
    return tally.line(f"{found}; the command takes {seconds:.1f} s")


def at_operations(name: str, count: int | None) -> Line:
    """Before each of the command's file operations in its directory, or before ``count`` of them, evenly spread."""
    command = _short(COMMANDS[name])
    tally = Tally(f"{command.name}: killed before a file operation (open, rename, remove, mkdir)", "kills", ASKED)
    found = Resumptions()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        operations = mmap.mmap(-1, 8)  # shared with the process
        whole, _ = _whole(command, out, partial(_count, out, operations))
        (total,) = struct.unpack("q", operations)
        for number in _spread(total, count):
            shutil.rmtree(out, ignore_errors=True)
            status, text = tiny_runs.run(command, out, partial(_kill_at, out, number))
            killed = [] if status == -signal.SIGKILL else [f"was not killed: status {status}: {text[-300:]}"]
            _resume(command, out, whole, tally, f"operation {number} of {total}", found, killed)
    return tally.line(f"{found}; of {total} operations")


def inside_writes(name: str, count: int, seed: int) -> Line:
    """When a file has a random number of bytes: the kernel kills what writes beyond its limit."""
    command, sizes = _short(COMMANDS[name]), random.Random(seed)
    tally = Tally(f"{command.name}: killed inside a write, at a random length of the file", "kills", ASKED)
    found, torn = Resumptions(), Counter[str]()
    with TemporaryDirectory() as folder:
        begun, out = Path(folder) / "begun", Path(folder) / "run"
        _whole(command.longer("--epochs=1"), begun)
        whole, _ = _whole(command, out)  # at once, or a fault of going on would be in both
        largest = max(path.stat().st_size for path in out.rglob("*"))
        while tally.count < count:
            shutil.rmtree(out)
            shutil.copytree(begun, out)
            size = round(largest ** sizes.uniform(0.4, 1))
            status, text = tiny_runs.run(command, out, partial(limit_files, size, signal.SIG_DFL))
            killed = [] if status == -signal.SIGXFSZ else [f"was not killed: status {status}: {text[-300:]}"]
            torn.update(path.name[1:-4] for path in out.rglob(".*.tmp"))
            _resume(command, out, whole, tally, f"{size} bytes", found, killed)
    names = ", ".join(f"{name} {often}" for name, often in sorted(torn.items()))
    return tally.line(f"{found}; half written were {names}")


def limit_files(size: int, action: Any) -> None:
    """Writing beyond ``size`` fails, after a signal that ``action`` answers."""
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Resumptions:
    """Where commands went on."""

    def __init__(self) -> None:
        self.anew, self.epochs = 0, list[int]()

    def add(self, kept: dict[Path, int]) -> None:
        """One more, of which so many epochs were kept."""
        if kept:
            self.epochs.append(max(kept.values()))
        else:
            self.anew += 1

    def __str__(self) -> str:
        went_on = f"{len(self.epochs)} went on"
        if self.epochs:
            went_on += f" after epochs {min(self.epochs)} to {max(self.epochs)}"
        return f"{self.anew} began anew, before the first checkpoint; {went_on}"


def _whole(
    command: Command, out: Path, prepare: Callable[[], object] = tiny_runs.nothing
) -> tuple[dict[str, Any], float]:
    """What the command leaves where it is not killed, and its seconds."""
    tiny_runs.warm()
    began = time.monotonic()
    tiny_runs.succeed(command, out, prepare)
    return tiny_runs.ending(out), time.monotonic() - began


def _resume(
    command: Command,
    out: Path,
    whole: dict[str, Any],
    tally: Tally,
    case: str,
    found: Resumptions,
    wrong: Sequence[str] = (),
) -> None:
    """Give the command again after it was killed, and note what did not hold."""
    try:
        kept = tiny_runs.epochs_kept(out)
        wrong = [*wrong, *(_lines(out) or _lost(command, out))]
    except RunError as error:  # a checkpoint that is not whole
        tally.note(case, *wrong, str(error))
        return
    status, text = tiny_runs.run(command, out)
    if status or "Traceback" in text:
        wrong.append(f"then status {status}: {text[-300:]}")
    else:
        if not _says(command, text, kept):
            wrong.append(f"does not say that it goes on after {kept}: {text[:300]}")
        wrong += [f"{each} differs" for each in tiny_runs.differing(tiny_runs.ending(out), whole)]
    found.add(kept)
    tally.note(case, *wrong)


def _says(command: Command, text: str, kept: dict[Path, int]) -> bool:
    """Whether a command has told where it begins."""
    if not kept:
        return "starting anew (no checkpoint in" in text

    def told(folder: Path, epoch: int) -> bool:
        path, total = folder / "checkpoint.pt", command.epochs
        begins = (
            f"resumed at epoch {epoch + 1} of {total}, from {path}",
            f"nothing to train: {epoch} of {total} epochs are done in {path}",
        )
        # A table may have the result of a run that is at its end.
        return any(each in text for each in begins) or (command.is_table and epoch == command.epochs)

    return all(told(folder, epoch) for folder, epoch in kept.items())


def _lines(out: Path) -> list[str]:
    """What is wrong with the lines that a killed command has left: torn, or twice."""
    wrong = []
    for path in out.rglob("*.jsonl"):
        lines = path.read_text().splitlines()
        try:
            records = [json.loads(line) for line in lines]
        except ValueError:
            wrong.append(f"{path.name} has a torn line")
            continue
        numbers = [tuple(record.get(name) for name in ("member", "epoch", "method", "seed")) for record in records]
        if len({*numbers}) < len(numbers):
            wrong.append(f"{path.name} has a line twice")
    return wrong


def _lost(command: Command, out: Path) -> list[str]:
    """What is wrong with how far each checkpoint is behind the epochs that its run has written."""
    wrong = []
    for path in out.rglob("metrics.jsonl"):
        state = path.parent / "checkpoint.pt"
        kept = checkpoint.read(state)[1]["epoch"] if state.exists() else 0
        seconds = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            seconds[record["epoch"]] = record["seconds"]
        # With the last epoch but one the interval was not over, or there were a checkpoint of it.
        lost = sum(each for epoch, each in seconds.items() if kept < epoch < max(seconds))
        if lost > command.seconds:
            wrong.append(f"{lost:.2f} s of whole epochs are lost, between checkpoints lie {command.seconds} s")
    return wrong


def _short(command: Command) -> Command:
    """So few epochs that every file operation of a run can be tried; a checkpoint each, whatever the clock says."""
    return replace(command.longer("--epochs=3"), seconds=0.0)


def _spread(total: int, count: int | None) -> list[int]:
    count = total if count is None else min(count, total)
    return sorted({1 + round(place * (total - 1) / max(count - 1, 1)) for place in range(count)})


def _count(out: Path, operations: mmap.mmap) -> None:
    """In the process of the run."""

    def on_operation() -> None:
        operations[:] = struct.pack("q", struct.unpack("q", operations)[0] + 1)

    _watch(out, on_operation)


def _kill_at(out: Path, number: int) -> None:
    """Likewise."""
    done = 0

    def on_operation() -> None:
        nonlocal done
        done += 1
        if done == number:
            os.killpg(0, signal.SIGKILL)

    _watch(out, on_operation)


def _watch(out: Path, on_operation: Callable[[], None]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        places = OPERATIONS.get(event, ())
        if any(str(arguments[place]).startswith(str(out)) for place in places):
            on_operation()

    sys.addaudithook(hook)
