"""Files that a killed process never leaves half written, and folders that two processes do not share."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import RunError

LOCK = ".lock"


class Occupied(RunError):
    """Another process works in a folder."""


@contextlib.contextmanager
def leaving_occupied() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Do all of several pieces of work but those that another process is at, and tell at the end.

    Gives a context manager for each piece of work.

    Raises:
        Occupied: at the end, naming every folder that was.
    """
    found: list[str] = []

    @contextlib.contextmanager
    def piece() -> Iterator[None]:
        try:
            yield
        except Occupied as error:
            found.append(str(error))

    yield piece
    if found:
        raise Occupied("; ".join(found))


def for_device(folder: Path, device: str) -> Path:
    """``folder`` for runs on a CPU, its neighbour for those on another device: they are other runs."""
    return folder if device == "cpu" else folder.with_name(f"{folder.name}-{device.replace(':', '')}")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then rename it: ``path`` is the old or the new, whole.

    Raises:
        RunError: it could not be written, say for want of room; ``path`` is the old one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path):
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())  # else the rename may reach the disk before the data
            os.replace(temporary, path)
            _sync_folder(path.parent)  # else a power cut may bring the old one back
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # it takes the room that the next command needs
        raise


def append(path: Path, text: str) -> None:
    """Add whole lines to a file, or none.

    Raises:
        RunError: they could not be written.
    """
    with naming(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            before, rest = os.fstat(handle).st_size, text.encode()
            try:
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except BaseException:  # no room, or Ctrl-C
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A system call that fails in writing ``path`` as a RunError that names it."""
    try:
        yield
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        reason = cause.strerror or cause
        raise RunError(f"{path}: cannot be written; what was there before is unchanged: {reason}") from error


def _system_error(error: BaseException | None) -> OSError | None:
    """The OSError of a chain: torch.save raises another error on top of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What ``path`` holds. Raises RunError naming it if that is no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}); mend or delete it") from error


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold ``folder`` against other processes that do the same; it is made if missing. The lock ends with the process.

    Raises:
        Occupied: with ``wait=False``, when another process holds it.
    """
    import fcntl  # absent on Windows

    folder.mkdir(parents=True, exist_ok=True)
    # A file of its own, open for writing: on NFS a directory cannot be locked for one alone.
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Occupied(f"{folder}: another process is at work there") from None
        yield
    finally:
        os.close(handle)
