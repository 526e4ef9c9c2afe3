"""Files that a killed process never leaves half written, and the checkpoint that a run resumes from."""

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .errors import RunError
from .recipes import Config


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then rename it: ``path`` is the old or the new, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())  # else the rename may reach the disk before the data
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def save(path: Path, configs: Sequence[Config], state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) with the configs that it belongs to, one a member."""
    content = {"configs": [asdict(config) for config in configs], "state": state}
    write_atomically(path, lambda file: torch.save(content, file))


def read(path: Path, *keys: str) -> tuple[Any, ...]:
    """What the checkpoint at ``path`` has under each key, tensors on the CPU.

    Raises:
        RunError: the file is not a whole checkpoint; it is named.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        # On the CPU, for that is where the states of random generators have to be.
        content = torch.load(path, map_location="cpu", weights_only=True)
        return tuple(content[key] for key in keys)
    except Exception as error:  # zipfile, pickle and torch raise about anything on a damaged file
        raise RunError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error}); delete it to start anew"
        ) from error


def load(path: Path, configs: Sequence[Config]) -> dict[str, Any]:
    """The state of the checkpoint at ``path``, on the CPU.

    Raises:
        RunError: the file is not a whole checkpoint, or belongs to other configs; the message names the file and
            what differs. Only ``epochs`` may differ: a run may be made longer.
    """
    saved, state = read(path, "configs", "state")
    epoch = state["epoch"]
    anew = "give another --out, or --no-resume (demo: --fresh) to start anew"
    differing = _differences(saved, configs)
    if differing:
        raise RunError(f"{path}: belongs to another run: {', '.join(differing)}; {anew}")
    epochs = configs[0].epochs
    if epoch > epochs:
        raise RunError(f"{path}: epochs: got {epochs}, allowed: {epoch} or more, for that many are done; {anew}")
    return state


def _differences(saved: list[dict[str, Any]], configs: Sequence[Config]) -> list[str]:
    if len(saved) != len(configs):
        return [f"members are {len(saved)} there and {len(configs)} here"]
    # A field that was added to Config since had its default value in effect when the file was written.
    defaults = {field.name: field.default for field in fields(Config) if field.default is not MISSING}
    differing = []
    for member, (there, config) in enumerate(zip(saved, configs, strict=True)):
        there, here = {**defaults, **there}, asdict(config)
        label = f"member {member}: " if len(configs) > 1 else ""
        differing += [
            f"{label}{name} is {there.get(name)!r} there and {here.get(name)!r} here"
            for name in {**here, **there}
            if there.get(name) != here.get(name) and name != "epochs"
        ]
    return differing
