"""The signatures of public packages and repositories, on top of this one."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from . import functional


def reinmax(logits: Tensor, tau: float | Tensor, hard: bool = True) -> tuple[Tensor, Tensor]:
    """The signature of the PyPI package ``reinmax`` (Liu et al., NeurIPS 2023).

    Args:
        logits: ``(..., N)``.
        tau: temperature.
        hard: has no effect, as in the package.

    Returns:
        ``(sample, probs)``: the one-hot sample and ``softmax(logits)``, with the gradient through both.
    """
    return functional.reinmax(logits, tau), logits.softmax(-1)


@contextlib.contextmanager
def patch_torch() -> Iterator[None]:
    """Inside, ``torch.nn.functional.gumbel_softmax`` is :func:`discrete_ops.gumbel_softmax` (process-wide)."""
    original = torch.nn.functional.gumbel_softmax
    setattr(torch.nn.functional, "gumbel_softmax", functional.gumbel_softmax)  # noqa: B010 (its type differs)
    try:
        yield
    finally:
        setattr(torch.nn.functional, "gumbel_softmax", original)  # noqa: B010
