"""Checks of flags that several tasks have; each names the argument, what came and what is allowed."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from .errors import RunError


def check_device(value: str) -> str:
    """``value`` if torch has such a device here. Raises ValueError naming the argument otherwise."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: got {value!r}, allowed: one that torch has here, such as 'cpu' ({reason})"
        ) from error
    return value


def check_folder(name: str, path: Path) -> None:
    """Raise RunError naming the argument if ``path`` is no directory to write in and cannot become one; makes none."""
    there = path
    try:
        there = next(each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink())
        if there.is_dir():
            # By a file, since root may write by its rights where the file system lets nobody.
            with tempfile.TemporaryFile(dir=there):
                return
        reason = f"{there} is no directory"
    except OSError as error:  # of a name that is too long, too
        reason = f"{there} cannot be written ({error.strerror})"
    raise RunError(f"{name}: got {path}, allowed: a directory that can be written; {reason}")


def set_threads(threads: int | None) -> None:
    """Let torch use so many threads; None leaves its own default. Raises RunError on another number than 1 or more."""
    if threads is not None:
        if threads < 1:
            raise RunError(f"threads: got {threads}, allowed: an int from 1")
        torch.set_num_threads(threads)


def parameters(estimator: type) -> set[str]:
    """The hyper-parameters that an estimator's dataclass takes."""
    return {field.name for field in fields(estimator)}


def refuse_unused(given: Mapping[str, Any], names: Iterable[str], estimator: str, table: Mapping[str, type]) -> None:
    """Refuse a hyper-parameter that the estimator has none of, though others have.

    Args:
        given: flags by name.
        names: of the hyper-parameters that only some estimators have.
        estimator: a key of ``table``.
        table: every estimator's dataclass by its name.

    Raises:
        ValueError: naming the flag, what came and which estimators take it.
    """
    for name in names:
        if name in given and name not in parameters(table[estimator]):
            users = ", ".join(key for key, cls in table.items() if name in parameters(cls))
            raise ValueError(f"{name}: got {given[name]!r} for {estimator}, which has none, allowed with: {users}")
