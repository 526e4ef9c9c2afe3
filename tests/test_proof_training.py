"""The short form of the proof that training survives: kills, full disks, wrong checkpoints and data."""

import os

import pytest
from proof_lines import assert_hold

from proof import training

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT COVERED: runs that are killed, which needs fork"),
]


@pytest.mark.parametrize("part", training.SHORT)
def test_training_survives(part: str) -> None:
    assert_hold(training.run(**{part: training.SHORT[part]}))
