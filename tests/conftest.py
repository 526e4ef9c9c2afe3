"""Fixtures of the whole suite: the backends that run here, reproducible hypothesis, poisoned memory."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch

import discrete_ops as do
from proof.interpreter import hasten

# Before they are imported: an assertion in them says what it got, too.
pytest.register_assert_rewrite("draws", "helpers", "proof_lines", "task_helpers")
from helpers import CPU_BACKENDS  # noqa: E402

if "triton" in CPU_BACKENDS:
    hasten()

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=40, print_blob=True)
hypothesis.settings.load_profile("house")


def pytest_report_header() -> str:
    return f"discrete_ops backends: {', '.join(do.available_backends())}; tested on CPU: {', '.join(CPU_BACKENDS)}"


@pytest.fixture(scope="session", params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on the CPU, one after the other."""
    return request.param


@pytest.fixture(scope="session", autouse=True)
def poisoned_empty() -> Iterator[None]:
    """``torch.empty``, from C++ too, comes filled with NaN (integers: their maximum): an unwritten output shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Compiled code of one test is no other's: torch.compile gives up after 8 recompilations of a function."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit-identical figures are promised for one thread; it also keeps the small models fast."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def saved_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a second write a checkpoint after every epoch, not only at the end."""
    from tasks.vae import train

    monkeypatch.setattr(train, "SECONDS", 0.0)


@pytest.fixture(scope="session")
def digits() -> Any:
    from tasks.vae import data  # here, so that the library's tests need no task

    return data.load("digits")


@pytest.fixture
def small(few: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every command of the VAE task sees two batches and a few test images."""
    from tasks.vae import data

    images = data.Images(few.train[:200], few.test[:20])
    monkeypatch.setattr(data, "load", lambda name, data_dir=None: images)
    return images


@pytest.fixture(scope="session")
def few(digits: Any) -> Any:
    """Four batches an epoch, the last one short."""
    return type(digits)(digits.train[:350], digits.test[:60])
