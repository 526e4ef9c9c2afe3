"""The fuzzer in its short form, and that it finds what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch
from proof_lines import assert_hold

from discrete_ops import cpp
from proof import fuzz
from proof.cases import Case


@pytest.fixture(autouse=True)
def failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cases that have failed, in a place of the test's own."""
    for path in fuzz.FAILURES.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(fuzz, "FAILURES", tmp_path)
    return tmp_path


def test_every_backend_agrees() -> None:
    assert_hold(fuzz.run(**fuzz.SHORT))


def test_a_failure_shrinks_and_stays(failures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of half types that are off by a hundredth in one backend."""
    right = cpp.surrogate_vjp
    before = {*failures.iterdir()}

    def wrong(grad: torch.Tensor, *call: Any) -> torch.Tensor:
        return right(grad, *call) * (1.01 if grad.dtype == torch.float16 else 1.0)

    monkeypatch.setattr(cpp, "surrogate_vjp", wrong)
    (failure,) = fuzz.tried(fuzz.Batch(0, 200, interpreted=False)).failures
    assert "gradient" in failure
    (kept,) = {*failures.iterdir()} - before
    case = Case.read(kept.read_text())
    assert (case.dtype, case.estimator, case.layout, case.special) == ("float16", "straight_through", "contiguous", ())
    assert [again.partition(":")[0] for again in fuzz.tried_again().failures] == [kept.name]
    monkeypatch.setattr(cpp, "surrogate_vjp", right)
    assert not fuzz.tried_again().failures
