"""What only root may do on Linux: taken from a process, and given to one for itself alone."""

import ctypes
import errno
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_VERSION, _OVERRIDE, _READ_SEARCH = 0x20080522, 1, 2  # linux/capability.h
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # linux/sched.h
_PRIVATE = 0x4000 | 0x40000  # linux/mount.h: MS_REC, MS_PRIVATE


class NoDisk(Exception):
    """A file system cannot be mounted, for want of the right to."""


_libc = ctypes.CDLL(None, use_errno=True)


def give_up() -> None:
    """Root reads and writes any file; from now on this process does what a file's mode lets it, as others do."""
    if os.geteuid() != 0:
        return
    header, sets = struct.pack("Ii", _VERSION, 0), ctypes.create_string_buffer(24)
    _call("capget", header, sets)
    words = [word & ~(1 << _OVERRIDE | 1 << _READ_SEARCH) for word in struct.unpack("6I", sets.raw)]
    _call("capset", header, struct.pack("6I", *words))


def with_small_disk(folder: Path, size: int, work: Callable[[], T]) -> T:
    """What ``work`` returns in a forked process that has a file system of ``size`` bytes at ``folder``.

    Raises:
        NoDisk: no process may mount one here.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(writing, "wb") as file:
                pickle.dump(_outcome(folder, size, work), file)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    result = pickle.loads(content)
    if isinstance(result, BaseException):
        raise result
    return result


def _outcome(folder: Path, size: int, work: Callable[[], object]) -> object:
    try:
        _mount(folder, size)
    except OSError as error:
        return NoDisk(str(error))
    try:
        return work()
    except BaseException as error:
        return error


def _mount(folder: Path, size: int) -> None:
    """In mounts of its own; who is not root is, there."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _call("unshare", _NEW_MOUNTS)
    else:
        _call("unshare", _NEW_MOUNTS | _NEW_USERS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _PRIVATE, None)
    _call("mount", b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode())


def _call(name: str, *arguments: object) -> None:
    if not hasattr(_libc, name):
        raise OSError(errno.ENOSYS, f"{name}: this system has none")
    if getattr(_libc, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
