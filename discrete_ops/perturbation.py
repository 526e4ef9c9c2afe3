"""The perturbation of the gapped straight-through estimator (GST Eq. 17-18, Lemma 1), on rows of logits l and one-hot
samples D."""

import torch
from torch import Tensor


def perturbed(l: Tensor, D: Tensor, gap: float | Tensor) -> Tensor:  # noqa: E741
    """``l + m1 - m2``, GST Eq. 17-18: D's logit rises to the maximum, all others stay ``gap`` below it."""
    top = l.amax(-1, keepdim=True)
    return torch.where(D.bool(), top, torch.minimum(l, top - gap))


def pi_gap(l: Tensor, D: Tensor) -> Tensor:  # noqa: E741
    """Lemma 1 of GST: ``-log(1 - pi_i) / pi_i``, the mean lead of a winning category i over the runner-up.

    Written as ``softplus(a) / sigmoid(a)`` with the log-odds ``a = l_i - logsumexp_{j != i} l_j``, and through
    ``exp(-|a|)``, so it is right at both ends: 1 as ``pi_i -> 0`` and ``a`` as ``pi_i -> 1``.
    """
    others = l.masked_fill(D.bool(), -torch.inf).logsumexp(-1, keepdim=True)
    a = l.masked_fill(~D.bool(), -torch.inf).amax(-1, keepdim=True) - others
    x = (-a.abs()).exp().clamp_min(torch.finfo(l.dtype).tiny)
    return (1 + x) * torch.where(a > 0, a + x.log1p(), x.log1p() / x)


def through_perturbation(l: Tensor, D: Tensor, pulled: Tensor, gap: float | Tensor) -> Tensor:  # noqa: E741
    """Backward of ``h = l + m1 - m2`` through m1 and m2 (NZ-GST): what h took from ``max(l)`` goes back to it."""
    top = l.amax(-1, keepdim=True)
    taken, is_top = D.bool() | (l > top - gap), l == top
    back = pulled.masked_fill(~taken, 0.0).sum(-1, keepdim=True) / is_top.sum(-1, keepdim=True)
    return pulled.masked_fill(taken, 0.0) + back * is_top


def into_perturbation(l: Tensor, D: Tensor, tangent: Tensor, gap: float | Tensor) -> Tensor:  # noqa: E741
    """Its transpose: where h takes from ``max(l)``, it moves as ``max(l)`` does."""
    top = l.amax(-1, keepdim=True)
    taken, is_top = D.bool() | (l > top - gap), l == top
    of_top = (tangent * is_top).sum(-1, keepdim=True) / is_top.sum(-1, keepdim=True)
    return torch.where(taken, of_top, tangent)
