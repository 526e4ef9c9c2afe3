"""The checkpoint that a run resumes from."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tasks.vae import checkpoint
from tasks.vae.checkpoint import write_atomically
from tasks.vae.errors import RunError

from .recipes import Config

LONGER = ("epochs", "patience")  #: may differ: a run may be made longer


def save(path: Path, config: Config, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) with the config that it belongs to."""
    write_atomically(path, lambda file: torch.save({"config": asdict(config), "state": state}, file))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and state of the checkpoint at ``path``, on the CPU.

    Raises:
        RunError: the file is not a whole checkpoint; it is named.
    """
    config, state = checkpoint.read(path, "config", "state")
    return dict(config), dict(state)


def load(path: Path, config: Config) -> dict[str, Any]:
    """The state of the checkpoint at ``path``, if it is of ``config``.

    Raises:
        RunError: the file is not a whole checkpoint, or belongs to another config; the message names the file and
            what differs.
    """
    saved, state = read(path)
    now = asdict(config)
    differing = [
        f"{name} is {saved.get(name)!r} there and {now.get(name)!r} here"
        for name in {**now, **saved}
        if saved.get(name) != now.get(name) and name not in LONGER
    ]
    anew = "give another --out, or --no-resume to start anew"
    if differing:
        raise RunError(f"{path}: belongs to another run: {', '.join(differing)}; {anew}")
    if state["epoch"] > config.epochs:
        done = state["epoch"]
        raise RunError(f"{path}: epochs: got {config.epochs}, allowed: {done} or more, for that many are done; {anew}")
    return state
