"""The plain-PyTorch formulations on a GPU: nothing that waits for the device, so that CUDA graphs can hold them.

``formulations.py`` samples with ``torch.multinomial``, which reads a value back on every call; here the same
categories are drawn by a race of exponentials.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gumbel_softmax as torch_gumbel_softmax

import discrete_ops as do

Formulation = Callable[[Tensor], Tensor]


def _one_hot_sample(p: Tensor) -> Tensor:
    index = (p / torch.empty_like(p).exponential_()).argmax(-1, keepdim=True)
    return torch.zeros_like(p).scatter_(-1, index, 1.0)


def straight_through(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    return _one_hot_sample(p.detach()) + p - p.detach()


def gumbel_softmax(logits: Tensor) -> Tensor:
    return torch_gumbel_softmax(logits, hard=True)


def gst(logits: Tensor, gap: float = 1.0) -> Tensor:
    fixed = logits.detach()
    D, top = _one_hot_sample(fixed.softmax(-1)), fixed.amax(-1, keepdim=True)
    m1 = (top - (fixed * D).sum(-1, keepdim=True)) * D
    m2 = (fixed + gap - top).relu() * (1 - D)
    p = (logits + m1 - m2).softmax(-1)
    return D + p - p.detach()


def reinmax(logits: Tensor) -> Tensor:
    """Liu et al. 2023, Algorithm 2, at temperature 1."""
    pi = logits.softmax(-1)
    D = _one_hot_sample(pi.detach())
    half_way = (D + pi.detach()) / 2
    pi_1 = ((half_way.log() - logits).detach() + logits).softmax(-1)
    pi_2 = 2 * pi_1 - pi / 2
    return pi_2 - pi_2.detach() + D


def gumbel_rao(logits: Tensor, num_samples: int = 1000) -> Tensor:
    """Materialises its draws, as the public repositories do."""
    fixed = logits.detach()
    D = _one_hot_sample(fixed.softmax(-1))
    E = torch.empty(num_samples, *logits.shape, device=logits.device).exponential_()
    E_i = (E * D).sum(-1, keepdim=True)
    weight, Z = fixed.exp(), fixed.exp().sum(-1, keepdim=True)
    Y = D * (Z.log() - E_i.log()) - (1 - D) * (E / weight + E_i / Z).log()
    p = (Y - fixed + logits).softmax(-1).mean(0)
    return D + p - p.detach()


#: name: (ours, plain)
PAIRS: dict[str, tuple[Formulation, Formulation]] = {
    "straight_through": (do.straight_through, straight_through),
    "gumbel_softmax": (lambda logits: do.gumbel_softmax(logits, hard=True), gumbel_softmax),
    "gst": (do.gst, gst),
    "reinmax": (do.reinmax, reinmax),
}
#: name: the estimator's row of reference.TERMS and its coefficient
KERNELS = {
    "straight_through": ("straight_through", 0.0),
    "gumbel_softmax": ("gumbel_rao", 0.0),
    "gst": ("gst", 1.0),
    "reinmax": ("reinmax", 0.0),
}
