"""Writing that fails: beyond a limit on files' size, and on a file system that is full. Then the same command again."""

import contextlib
import json
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.common import checkpoint, files
from tasks.common.errors import RunError

from . import rights, tiny_runs
from .kills import limit_files
from .record import Line
from .tally import Tally
from .tiny_runs import COMMANDS, Command

ASKED = (
    "status 1 and one line that names the file and ends with the cause; the checkpoint before it survives, no line is "
    "torn, no temporary file stays; with room the same command ends as if nothing had been"
)
DISK = 32 << 20  #: bytes of the small file system
PAGE = 4096


def of_runs(name: str, limits: int, rooms: int, seed: int) -> list[Line]:
    """Of one task's command: so many limits of the size of files, so many amounts of room on a disk."""
    tiny_runs.warm()
    with TemporaryDirectory() as folder:
        begun = _Begun(name, Path(folder))
        what = f"{begun.command.name}: the file system is full"
        return [
            _limited(begun, Path(folder), limits, seed),
            _with_disk(what, ASKED, partial(_full, begun, rooms, seed)),
        ]


def of_results(rooms: int, lines: int) -> list[Line]:
    """Of a table's files, of the lines that a run appends."""
    tiny_runs.warm()
    asked = "the lines that fit are there, whole; the error names the file and ends with the cause"
    return [
        _with_disk("VAE table: the results' file system is full", ASKED, partial(_table, rooms)),
        _with_disk("Lines appended where the file system is full", asked, partial(_append, lines)),
    ]


def _with_disk(what: str, asked: str, fill: Callable[[Tally, Path], str]) -> Line:
    """``fill`` notes its cases on a small file system, and returns what it has found."""
    with TemporaryDirectory() as folder:
        tally = Tally(what, "amounts of room", asked)
        try:
            return rights.with_small_disk(Path(folder), DISK, lambda: tally.line(fill(tally, Path(folder))))
        except rights.NoDisk as error:
            return Line.untried(what, tally.unit, asked, f"no small file system may be mounted ({error})")


class _Begun:
    """A run of one epoch, to go on from, and what three leave."""

    def __init__(self, name: str, folder: Path) -> None:
        self.command: Command = COMMANDS[name].longer("--epochs=3")
        self.folder = folder / "begun"
        shutil.rmtree(self.folder, ignore_errors=True)
        tiny_runs.succeed(self.command.longer("--epochs=1"), self.folder)
        whole = folder / "whole"
        tiny_runs.succeed(self.command, whole)  # at once, or a fault of going on would be in both
        self.ending: dict[str, Any] = tiny_runs.ending(whole)
        self.largest = max(path.stat().st_size for path in whole.rglob("*"))

    def copy(self, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder, out)


def _limited(begun: _Begun, folder: Path, count: int, seed: int) -> Line:
    out, sizes = folder / "limited", random.Random(seed)
    tally = Tally(f"{begun.command.name}: a file may not be longer than so many bytes", "limits", ASKED)
    named = Counter[str]()
    while tally.count < count:
        begun.copy(out)
        size = round(begun.largest ** sizes.uniform(0.4, 1))
        status, text = tiny_runs.run(begun.command, out, partial(limit_files, size, signal.SIG_IGN))
        wrong = _failure(status, text, out, "File too large", named)
        tally.note(f"{size} bytes", *wrong, *_again(begun, out))
    return tally.line(_told(named))


def _full(begun: _Begun, count: int, seed: int, tally: Tally, disk: Path) -> str:
    out, rooms = disk / "run", random.Random(seed)
    named = Counter[str]()
    while tally.count < count:
        begun.copy(out)
        # A few pages, of which the small files are, in half of the cases; up to a checkpoint in the others.
        pages = tally.count // 2 if tally.count % 2 == 0 else rooms.randrange(begun.largest // PAGE)
        with _ballast(disk, pages):
            status, text = tiny_runs.run(begun.command, out)
            wrong = _failure(status, text, out, "No space left on device", named)
        tally.note(f"room for {pages} pages", *wrong, *_again(begun, out))
    return _told(named)


def _table(count: int, tally: Tally, disk: Path) -> str:
    with TemporaryDirectory() as folder:
        out, results = Path(folder), disk / "results"
        command = COMMANDS["vae-table"].longer("--epochs=1", f"--results={results}")
        tiny_runs.succeed(command, out)
        whole, named = tiny_runs.ending(results), Counter[str]()
        while tally.count < count:
            shutil.rmtree(results)
            pages = tally.count  # one after another of its files finds no room
            with _ballast(disk, pages):
                status, text = tiny_runs.run(command, out)
            wrong = _refusal(status, text, results, "No space left on device", named)
            status, text = tiny_runs.run(command, out)
            wrong += [f"{name} differs" for name in tiny_runs.differing(tiny_runs.ending(results), whole)]
            tally.note(f"room for {pages} pages", *wrong)
    return _told(named)


def _append(count: int, tally: Tally, disk: Path) -> str:
    path, appended = disk / "metrics.jsonl", 0
    while tally.count < count:
        line = "x" * (tally.count + 1) + "\n"
        path.write_text("")
        told = ""
        with _ballast(disk, 1):
            while not told:
                try:
                    files.append(path, line)
                    appended += 1
                except RunError as error:
                    told = str(error)
        wrong = [] if told.startswith(f"{path}: ") and told.endswith(": No space left on device") else [told]
        if path.read_text() != line * (PAGE // len(line)):
            wrong.append(f"{path.stat().st_size} bytes are there")
        tally.note(f"lines of {len(line)} bytes", *wrong)
    return f"lines of 2 to {len(line)} bytes, {appended} appended in all"


@contextlib.contextmanager
def _ballast(disk: Path, pages: int) -> Iterator[None]:
    """Leave so much room on the disk."""
    path = disk / "ballast"
    path.write_bytes(bytes(shutil.disk_usage(disk).free - pages * PAGE))
    try:
        yield
    finally:
        path.unlink()


def _failure(status: int, text: str, out: Path, cause: str, named: Counter[str]) -> list[str]:
    """What is wrong with how a command has failed, and with what it has left."""
    wrong = _refusal(status, text, out, cause, named)
    try:
        if checkpoint.read(out / "checkpoint.pt")[1]["epoch"] < 1:
            wrong.append("the checkpoint has no epoch")
        for line in (out / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def _refusal(status: int, text: str, out: Path, cause: str, named: Counter[str]) -> list[str]:
    errors = re.findall(rf"^error: {re.escape(str(out))}/(\S+): .*: {cause}$", text, re.MULTILINE)
    named.update(errors)
    is_told = status == 1 and "Traceback" not in text and len(errors) == 1
    wrong = [] if is_told else [f"status {status}: {text[-400:]}"]
    return wrong + [f"{path.name} stays" for path in out.rglob(".*.tmp")]


def _again(begun: _Begun, out: Path) -> list[str]:
    """What is wrong with the same command where there is room."""
    status, text = tiny_runs.run(begun.command, out)
    if status or not re.search("resumed at epoch|nothing to train", text):
        return [f"then status {status}: {text[-300:]}"]
    return [f"{name} differs" for name in tiny_runs.differing(tiny_runs.ending(out), begun.ending)]


def _told(named: Counter[str]) -> str:
    return "named were " + ", ".join(f"{name} {often}" for name, often in sorted(named.items()))
