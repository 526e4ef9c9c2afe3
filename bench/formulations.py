"""What is measured against what: our calls, and the plain-PyTorch formulations people use today.

Each takes logits that require grad and returns a sample to pull a gradient back through.
"""

from collections.abc import Callable

import torch
from reinmax import reinmax as reinmax_package
from torch import Tensor
from torch.nn.functional import gumbel_softmax as torch_gumbel_softmax
from torch.nn.functional import one_hot

import discrete_ops as do

Formulation = Callable[[Tensor], Tensor]


def _multinomial(logits: Tensor) -> Tensor:
    index = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
    return one_hot(index, logits.shape[-1]).to(logits.dtype)


def plain_straight_through(logits: Tensor) -> Tensor:
    D, p = _multinomial(logits.detach()), logits.softmax(-1)
    return D + p - p.detach()


def plain_gst(logits: Tensor, gap: float = 1.0) -> Tensor:
    fixed = logits.detach()
    D, top = _multinomial(fixed), fixed.amax(-1, keepdim=True)
    m1 = (top - (fixed * D).sum(-1, keepdim=True)) * D
    m2 = (fixed + gap - top).relu() * (1 - D)
    p = (logits + m1 - m2).softmax(-1)
    return D + p - p.detach()


def plain_gumbel_rao(logits: Tensor, num_samples: int = 100) -> Tensor:
    """Gumbel-Rao that materialises its draws, as the public repositories do."""
    fixed = logits.detach()
    D = _multinomial(fixed)
    E = torch.empty(num_samples, *logits.shape, device=logits.device).exponential_()
    E_i = (E * D).sum(-1, keepdim=True)
    weight, Z = fixed.exp(), fixed.exp().sum(-1, keepdim=True)
    Y = D * (Z.log() - E_i.log()) - (1 - D) * (E / weight + E_i / Z).log()
    p = (Y - fixed + logits).softmax(-1).mean(0)
    return D + p - p.detach()


#: name: (ours, plain)
PAIRS: dict[str, tuple[Formulation, Formulation]] = {
    "gumbel_softmax": (
        lambda logits: do.gumbel_softmax(logits, hard=True),
        lambda logits: torch_gumbel_softmax(logits, hard=True),
    ),
    "straight_through": (do.straight_through, plain_straight_through),
    "gst": (do.gst, plain_gst),
    "reinmax": (do.reinmax, lambda logits: reinmax_package(logits, 1.0)[0]),
    "gumbel_rao": (lambda logits: do.gumbel_rao(logits, num_samples=100), plain_gumbel_rao),
}


def setup(formulation: Formulation, rows: int, columns: int) -> Callable[[], None]:
    """One forward and backward pass, as the speed and the memory benchmark run it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, columns, generator=generator).requires_grad_()
    v = torch.randn(rows, columns, generator=generator)

    def run() -> None:
        logits.grad = None
        formulation(logits).backward(v)

    return run
