"""The checkpoint that a run resumes from: its state, with the configs that the state belongs to.

A file of ``torch.save``, which is a zip archive, with the SHA-256 of its bytes as the archive's comment: the checksums
in an archive are of its members, and not of the table that says which member is which.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch

from .errors import RunError
from .files import write_atomically

ANEW = "give another --out, or to start anew --no-resume (train), --fresh (demo) or delete it (other commands)"

NO_COMMENT = (0).to_bytes(2, "little")  # an archive's last bytes: the length of its comment, and the comment
LENGTH = 2 * hashlib.sha256().digest_size
COMMENT = LENGTH.to_bytes(2, "little")


def save(path: Path, configs: Sequence[Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) with its configs, frozen dataclasses, one a member."""
    content = {"configs": [asdict(config) for config in configs], "state": dict(state)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    archive = buffer.getvalue()[: -len(NO_COMMENT)]
    write_atomically(path, lambda file: file.write(archive + COMMENT + _digest(archive)))


def beginning(path: Path, epoch: int, epochs: int, is_over: bool, is_replaced: bool) -> str:
    """What a run says when it begins.

    Args:
        path: of its checkpoint.
        epoch: how many are done.
        epochs: how many there are to be.
        is_over: whether nothing is left to train.
        is_replaced: whether there was a checkpoint that it was told to leave aside.
    """
    if is_over:
        return f"nothing to train: {epoch} of {epochs} epochs are done in {path}"
    if epoch:
        return f"resumed at epoch {epoch + 1} of {epochs}, from {path}"
    return (
        f"starting anew (told not to resume {path})"
        if is_replaced
        else f"starting anew (no checkpoint in {path.parent})"
    )


def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Configs and state of the checkpoint at ``path``, tensors on the CPU.

    Raises:
        RunError: the file is not a whole checkpoint; it is named.
    """
    try:
        written = path.read_bytes()
        _check(written)
        # On the CPU, for that is where the states of random generators have to be.
        content = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
        configs, state = content["configs"], content["state"]
        if not all(isinstance(part, dict) for part in (*configs, state)) or not isinstance(state["epoch"], int):
            raise ValueError("holds no run's configs and state")
        return configs, state
    except Exception as error:  # zipfile, pickle and torch raise about anything on a damaged file
        raise RunError(
            f"{path}: not a readable checkpoint; delete it to start anew: {type(error).__name__}: {_brief(error)}"
        ) from error


def load(
    path: Path, configs: Sequence[Any], data: Mapping[str, str] | None = None, longer: Collection[str] = ("epochs",)
) -> dict[str, Any]:
    """The state of the checkpoint at ``path``, if it belongs to ``configs`` and ``data``.

    Args:
        path: of the file.
        configs: what runs now; all of one dataclass with a field ``epochs``.
        data: by the name of each data file, the hash of its content, as ``state["data"]`` has it; None does not ask.
        longer: fields that may differ, since a run may be made longer.

    Raises:
        RunError: the file is not a whole checkpoint, or belongs to other configs or data; the message names the file
            and what differs.
    """
    saved, state = read(path)
    differing = _differences(saved, configs, longer)
    if differing:
        raise RunError(f"{path}: belongs to another run: {', '.join(differing)}; {ANEW}")
    epoch, epochs = state["epoch"], configs[0].epochs
    if epoch > epochs:
        raise RunError(f"{path}: epochs: got {epochs}, allowed: {epoch} or more, for that many are done; {ANEW}")
    there = state.get("data")
    there = there if isinstance(there, dict) else {}  # an earlier version has no hash of each file
    others = [
        f"{name} has {there[name]} there and {digest} here"
        for name, digest in (data or {}).items()
        if there.get(name, digest) != digest
    ]
    if others:
        advice = f"go on with what it was begun with, {ANEW}"
        raise RunError(f"{path}: belongs to other data, by its hash: {', '.join(others)}; {advice}")
    return state


def restore(
    path: Path,
    configs: Sequence[Any],
    put: Callable[[dict[str, Any]], None],
    data: Mapping[str, str] | None = None,
    longer: Collection[str] = ("epochs",),
) -> None:
    """Give the state of the checkpoint at ``path`` to ``put``. Arguments and errors as of :func:`load`, and:

    Raises:
        RunError: ``put`` cannot take it, which another version or machine wrote.
    """
    state = load(path, configs, data, longer)
    try:
        put(state)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:  # of weights of other shapes
        raise RunError(f"{path}: does not fit these runs on this machine; {ANEW}: {_brief(error)}") from error


def _check(content: bytes) -> None:
    """Raise if they are not the bytes that were written."""
    if content.endswith(NO_COMMENT):  # of an earlier version, without the digest
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            damaged = members.testzip()  # torch.load does not look at the checksums
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        return
    archive, length, digest = content[: -LENGTH - 2], content[-LENGTH - 2 : -LENGTH], content[-LENGTH:]
    if length != COMMENT or digest != _digest(archive):
        raise ValueError("wrong checksum")


def _digest(archive: bytes) -> bytes:
    return hashlib.sha256(archive).hexdigest().encode()


def _brief(error: Exception) -> str:
    """An error in one line: torch's go on for many."""
    return " ".join(str(error).split())


def _differences(saved: list[dict[str, Any]], configs: Sequence[Any], longer: Collection[str]) -> list[str]:
    if len(saved) != len(configs):
        return [f"members are {len(saved)} there and {len(configs)} here"]
    # A field that was added to the config since had its default value in effect when the file was written.
    defaults = {field.name: field.default for field in fields(configs[0]) if field.default is not MISSING}
    differing = []
    for member, (there, config) in enumerate(zip(saved, configs, strict=True)):
        here = asdict(config)
        # Likewise one that was removed, if it said nothing.
        there = {**defaults, **{name: value for name, value in there.items() if name in here or value}}
        label = f"member {member}: " if len(configs) > 1 else ""
        differing += [
            f"{label}{name} is {there.get(name)!r} there and {here.get(name)!r} here"
            for name in {**here, **there}
            if there.get(name) != here.get(name) and name not in longer
        ]
    return differing
