"""The short form of the proof that training survives: kills, full disks, wrong checkpoints and data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from proof_lines import assert_hold

from proof import kills, training
from tasks.common import checkpoint, files
from tasks.vae.streams import Streams

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT COVERED: runs that are killed, which needs fork"),
]


@pytest.mark.parametrize("part", training.SHORT)
def test_training_survives(part: str) -> None:
    assert_hold(training.run(**{part: training.SHORT[part]}))


def _in_place(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with files.naming(path), open(path, "wb") as file:
        write(file)


@pytest.mark.parametrize(
    ("owner", "name", "planted", "seen"),
    [
        (checkpoint, "write_atomically", _in_place, "checkpoint.pt: not a readable checkpoint"),
        (Streams, "load_state_dict", lambda streams, state: None, "checkpoint.pt differs"),
    ],
    ids=["written in place", "random numbers anew"],
)
def test_a_planted_fault_is_seen(
    owner: Any, name: str, planted: Callable[..., None], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, planted)
    line = kills.inside_writes("vae", 1, seed=0)
    assert line.holds is False
    assert seen in line.found
