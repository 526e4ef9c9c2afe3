"""Checkpoints that are damaged, or another run's: refused by name, and nothing is touched."""

import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tasks.common import checkpoint
from tasks.common.errors import RunError

from . import rights, tiny_runs
from .record import Line
from .tally import Tally
from .tiny_runs import TRAIN, Command

Damage = Callable[[Path], object]


def run(flips: int, lengths: int) -> list[Line]:
    tiny_runs.warm()
    with TemporaryDirectory() as folder:
        runs = {task: Path(folder) / task for task in TRAIN}
        for task, out in runs.items():
            tiny_runs.succeed(_short(task), out)
        # The flipped ones are of ListOps: 80 kB, of which many bytes can be tried.
        bytes_ = (runs["listops"] / "checkpoint.pt").read_bytes()
        scratch = Path(folder) / "damaged.pt"
        return [_flipped(bytes_, scratch, flips), _cut(bytes_, scratch, lengths), _commands(runs, Path(folder) / "out")]


def _short(task: str) -> Command:
    return TRAIN[task].longer("--epochs=1")


def _flipped(content: bytes, path: Path, count: int) -> Line:
    """One byte changed, evenly spread over the file: to each a random other value."""
    tally = Tally(
        "A checkpoint with one other byte",
        "bytes",
        "refused by the file's name",
    )
    values = random.Random(0)
    path.write_bytes(content)
    for number in range(count):
        place = number * len(content) // count
        damaged = bytearray(content)
        damaged[place] ^= values.randrange(1, 256)
        path.write_bytes(damaged)
        told = _read(path)
        tally.note(f"byte {place}", *([] if told and _is_named(told, path) else [told or "read"]))
    return tally.line(f"of {len(content)} bytes")


def _cut(content: bytes, path: Path, count: int) -> Line:
    tally = Tally("A checkpoint cut short", "lengths", "refused by the file's name")
    for number in range(count):
        length = number * len(content) // count
        path.write_bytes(content[:length])
        told = _read(path)
        tally.note(f"{length} bytes", *([] if told and _is_named(told, path) else [told or "read"]))
    return tally.line(f"from 0 to {length} of {len(content)} bytes")


def _read(path: Path) -> str | None:
    """What reading it raises."""
    try:
        checkpoint.read(path)
    except RunError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _is_named(told: str, path: Path) -> bool:
    return told.startswith(f"{path}: not a readable checkpoint") and "\n" not in told


# ---------------------------------------------------------------------------------------------------
# Through the command lines


def _commands(runs: dict[str, Path], out: Path) -> Line:
    """Each kind of wrong checkpoint in a run's directory, then its command."""
    tally = Tally(
        "A wrong checkpoint in a run's directory: both tasks' commands",
        "commands",
        "status 1 and one line that names the file and ends with the cause; every file as it was; nothing starts anew",
    )
    for task, source in runs.items():
        other = next(each for name, each in runs.items() if name != task) / "checkpoint.pt"
        for case, damage, cause in _damages(other):
            shutil.copytree(source, out)
            path = out / "checkpoint.pt"
            damage(path)
            before = tiny_runs.contents(out)
            status, text = tiny_runs.run(_short(task), out, rights.give_up)
            wrong = _refusal(status, text, path, cause)
            if tiny_runs.contents(out) != before:
                wrong.append("files were changed")
            tally.note(f"{task}, {case}", *wrong)
            shutil.rmtree(out)
    cases = ", ".join(case for case, _, _ in _damages(other))
    return tally.line(cases)


def _damages(other: Path) -> Iterator[tuple[str, Damage, str]]:
    """What can be wrong: in words, how to make it so, and a part of the message.

    Args:
        other: the checkpoint of another task's run.
    """
    unreadable = "not a readable checkpoint; delete it to start anew: "
    yield "empty", lambda path: path.write_bytes(b""), unreadable
    yield "half of it", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), unreadable
    yield "a flipped bit of a weight", _flip_a_weight, unreadable + "ValueError: wrong checksum"
    yield "a text", lambda path: path.write_text("{}\n"), unreadable
    yield "a directory", _directory, unreadable
    yield "unreadable", lambda path: path.chmod(0), unreadable + "PermissionError: "
    yield "a pickle that would run a program", _program, unreadable
    yield "an archive with such a pickle", _program_in_archive, unreadable
    yield "a tensor", lambda path: torch.save(torch.zeros(3), path), unreadable
    yield "other content", lambda path: torch.save({"configs": 3, "state": {"epoch": "x"}}, path), unreadable
    yield "of another task", lambda path: shutil.copy(other, path), "belongs to another run: "
    yield (
        "of another estimator",
        partial(_change, "estimator", "reinmax"),
        "estimator is 'reinmax' there and 'gst' here",
    )
    yield "of a later version's config", partial(_change, "warmth", 3), "warmth is 3 there and None here"
    yield "of more epochs", _more_epochs, "epochs: got 1, allowed: 9 or more"
    yield "of other weights' shapes", _other_shapes, "does not fit these runs on this machine; "
    yield "of a state without weights", _without_state, "does not fit these runs on this machine; "
    yield "of other data", _other_data, "belongs to other data, by its hash: "


def _refusal(status: int, text: str, path: Path, cause: str) -> list[str]:
    """What is wrong with how a command has refused."""
    last = [line for line in text.splitlines() if line.startswith("error: ")]
    wrong = []
    if status != 1 or "Traceback" in text:
        wrong.append(f"status {status}: {text[-300:]}")
    elif len(last) != 1 or not last[0].startswith(f"error: {path}: ") or cause not in last[0]:
        wrong.append(f"says {text[-300:]!r}, not {cause!r}")
    if "starting anew (" in text or "resumed at" in text:
        wrong.append("began to train")
    return wrong


def _flip_a_weight(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
    content[member.header_offset + 30 + name + extra + member.file_size // 2] ^= 1
    path.write_bytes(content)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo Traceback: a program ran",)


def _program(path: Path) -> None:
    torch.save(_Program(), path, _use_new_zipfile_serialization=False)


def _program_in_archive(path: Path) -> None:
    torch.save({"configs": [{}], "state": {"epoch": 1, "weights": _Program()}}, path)


def _change(name: str, value: Any, path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["configs"][0][name] = value
    torch.save(content, path)


def _more_epochs(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state"]["epoch"] = 9
    torch.save(content, path)


def _other_shapes(path: Path) -> None:
    def halved(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value[..., : (value.shape[-1] + 1) // 2] if value.ndim else value
        if isinstance(value, dict):
            return {name: halved(each) for name, each in value.items()}
        return [halved(each) for each in value] if isinstance(value, list) else value

    content = torch.load(path, weights_only=True)
    torch.save({**content, "state": halved(content["state"])}, path)


def _without_state(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    kept = {name: value for name, value in content["state"].items() if name in ("epoch", "data")}
    torch.save({**content, "state": kept}, path)


def _other_data(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state"]["data"] = {name: "0" * 16 for name in content["state"]["data"]}
    torch.save(content, path)
