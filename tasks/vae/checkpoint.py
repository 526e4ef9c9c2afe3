"""Files that a killed process never leaves half written, and the checkpoint that a run resumes from."""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict
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


def write_json(path: Path, value: object) -> None:
    write_atomically(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def save(path: Path, config: Config, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) with the config that it belongs to."""
    write_atomically(path, lambda file: torch.save({"config": asdict(config), "state": state}, file))


def load(path: Path, config: Config) -> dict[str, Any]:
    """The state of the checkpoint at ``path``, on the CPU.

    Raises:
        RunError: the file is not a whole checkpoint, or belongs to another config; the message names the file and
            what differs. Only ``epochs`` may differ: a run may be made longer.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        # On the CPU, for that is where the states of random generators have to be.
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved, state, epoch = content["config"], content["state"], content["state"]["epoch"]
    except Exception as error:  # zipfile, pickle and torch raise about anything on a damaged file
        raise RunError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error}); delete it to start anew"
        ) from error
    anew = "give another --out, or --no-resume (demo: --fresh) to start anew"
    now = asdict(config)
    differing = [
        f"{name} is {saved.get(name)!r} there and {now.get(name)!r} here"
        for name in {**now, **saved}
        if saved.get(name) != now.get(name) and name != "epochs"
    ]
    if differing:
        raise RunError(f"{path}: belongs to another run: {', '.join(differing)}; {anew}")
    if epoch > config.epochs:
        raise RunError(f"{path}: epochs: got {config.epochs}, allowed: {epoch} or more, for that many are done; {anew}")
    return state
