"""Writing that fails: beyond a limit on files' size, and on a file system that is full. Then the same command again."""

import json
import random
import re
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.common import checkpoint

from . import rights, tiny_runs
from .kills import limit_files
from .record import Line
from .tally import Tally
from .tiny_runs import TRAIN, Command

ASKED = (
    "status 1 and one line that names the file and ends with the cause; the checkpoint before it survives, no line is "
    "torn, no temporary file stays; with room the same command ends as if nothing had been"
)
DISK = 32 << 20  #: bytes of the small file system
PAGE = 4096


def run(name: str, limits: int, rooms: int, seed: int) -> list[Line]:
    """Of one task's command: so many limits of the size of files, so many amounts of room on a disk."""
    tiny_runs.warm()
    with TemporaryDirectory() as folder:
        return [_limited(name, Path(folder), limits, seed), _full(name, Path(folder), rooms, seed)]


class _Begun:
    """A run of one epoch, to go on from, and what three leave."""

    def __init__(self, name: str, folder: Path) -> None:
        self.command: Command = TRAIN[name].longer("--epochs=3")
        self.folder = folder / "begun"
        shutil.rmtree(self.folder, ignore_errors=True)
        _succeed(self.command.longer("--epochs=1"), self.folder)
        whole = folder / "whole"
        self.copy(whole)
        _succeed(self.command, whole)
        self.ending: dict[str, Any] = tiny_runs.ending(whole)
        self.largest = max(path.stat().st_size for path in whole.rglob("*"))

    def copy(self, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder, out)


def _succeed(command: Command, out: Path) -> None:
    status, text = tiny_runs.run(command, out)
    if status:
        raise RuntimeError(f"{command.name}: ended with status {status}: {text}")


def _limited(name: str, folder: Path, count: int, seed: int) -> Line:
    begun, out, sizes = _Begun(name, folder), folder / "limited", random.Random(seed)
    tally = Tally(f"{begun.command.name}: a file may not be longer than so many bytes", "limits", ASKED)
    named = Counter[str]()
    while tally.count < count:
        begun.copy(out)
        size = round(begun.largest ** sizes.uniform(0.4, 1))
        status, text = tiny_runs.run(begun.command, out, partial(limit_files, size, signal.SIG_IGN))
        wrong = _failure(status, text, out, "File too large", named)
        tally.note(f"{size} bytes", *wrong, *_again(begun, out))
    return tally.line(_told(named))


def _full(name: str, folder: Path, count: int, seed: int) -> Line:
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    try:
        return rights.with_small_disk(disk, DISK, partial(_on_disk, name, disk, count, seed))
    except OSError as error:
        what = f"{TRAIN[name].name}: the file system is full"
        return Line(what, 0, "amounts of room", ASKED, f"not tried: no small file system may be mounted ({error})", False)


def _on_disk(name: str, disk: Path, count: int, seed: int) -> Line:
    with TemporaryDirectory() as folder:  # beside the disk
        begun, out, rooms = _Begun(name, Path(folder)), disk / "run", random.Random(seed)
        tally = Tally(f"{begun.command.name}: the file system is full", "amounts of room", ASKED)
        named = Counter[str]()
        while tally.count < count:
            begun.copy(out)
            # Every few pages, of which the small files are, in half of the cases; up to a checkpoint in the others.
            pages = tally.count // 2 if tally.count % 2 == 0 else rooms.randrange(begun.largest // PAGE)
            _fill(disk / "ballast", disk, pages * PAGE)
            status, text = tiny_runs.run(begun.command, out)
            wrong = _failure(status, text, out, "No space left on device", named)
            (disk / "ballast").unlink()
            tally.note(f"room for {pages} pages", *wrong, *_again(begun, out))
        return tally.line(_told(named))


def _fill(ballast: Path, disk: Path, room: int) -> None:
    """Leave so many bytes."""
    with open(ballast, "wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - room))


def _failure(status: int, text: str, out: Path, cause: str, named: Counter[str]) -> list[str]:
    """What is wrong with how a command has failed, and with what it has left."""
    wrong = []
    errors = re.findall(rf"^error: {re.escape(str(out))}/(\S+): .*: {cause}$", text, re.MULTILINE)
    if status != 1 or "Traceback" in text or len(errors) != 1:
        wrong.append(f"status {status}: {text[-400:]}")
    named.update(errors)
    try:
        if checkpoint.read(out / "checkpoint.pt")[1]["epoch"] < 1:
            wrong.append("the checkpoint has no epoch")
        for line in (out / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong + [f"{path.name} stays" for path in out.rglob(".*.tmp")]


def _again(begun: _Begun, out: Path) -> list[str]:
    """What is wrong with the same command where there is room."""
    status, text = tiny_runs.run(begun.command, out)
    if status or not re.search("resumed at epoch|nothing to train", text):
        return [f"then status {status}: {text[-300:]}"]
    return [f"{name} differs" for name in tiny_runs.differing(tiny_runs.ending(out), begun.ending)]


def _told(named: Counter[str]) -> str:
    return "named were " + ", ".join(f"{name} {often}" for name, often in sorted(named.items()))
