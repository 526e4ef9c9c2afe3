"""The fastest formulations of ST, GST and Gumbel-Rao that were found in PyTorch, by CPU time of one thread.

Tried, forward + backward of straight-through at 3000x10 unless another is named, each against its neighbour in one run:

- categories: inverse CDF, a race of exponentials (1.5 times its time as ``log(rand)``, 5 with ``exponential_``),
  ``multinomial`` (3.5). The inverse CDF's uniform has 24 bits: a probability of 1e-7 is two steps of it
- its search: counting the columns below is 1.1 times faster than ``searchsorted`` to 32 columns, and slower beyond
- ``softmax``: that of rows of 10 takes five times what its parts take; from 32 columns on it is the faster
- the derivative: an ``autograd.Function`` with one saved tensor, against the detach trick, which adds two passes
- GST: from probabilities, where the gap is a factor, against a second softmax of shifted logits (1.25)
- Gumbel-Rao: in the backward pass, some draws at a time that stay in the cache, against all at once (1.25); times of a
  race and their reciprocals, against logarithms and a softmax; noise as ``log(rand)``, against ``exponential_`` (3)
- ``torch.compile`` of each: slower than as it is, but for Gumbel-Rao, whose loop it fuses; the report has both
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

SHORT = 32  #: columns from which torch's own row operations are the faster
CACHED = 2**17  #: elements of a part of the draws on a CPU
LEAST = torch.finfo(torch.float32).tiny


def _softmax(logits: Tensor) -> Tensor:
    if logits.shape[-1] >= SHORT:
        return logits.softmax(-1)
    weight = (logits - logits.amax(-1, keepdim=True)).exp_()
    return weight.div_(weight.sum(-1, keepdim=True))


def _sample(p: Tensor) -> tuple[Tensor, Tensor]:
    """One-hots and their indices."""
    cdf = p.cumsum(-1, dtype=torch.promote_types(p.dtype, torch.float32))  # sums in fewer bits have another law
    u = torch.rand_like(cdf[..., :1]) * cdf[..., -1:]
    short = p.shape[-1] < SHORT
    index = (cdf <= u).sum(-1, keepdim=True) if short else torch.searchsorted(cdf, u, right=True)
    return torch.zeros_like(p).scatter_(-1, index, 1.0), index


def _pull_back(p: Tensor, v: Tensor) -> Tensor:
    """``p * (v - <p, v>)``."""
    weighted = p * v
    return weighted.addcmul_(p, weighted.sum(-1, keepdim=True), value=-1)


class _StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        p = _softmax(logits)
        ctx.save_for_backward(p)
        return _sample(p)[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        return _pull_back(p, v)


class _GST(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, gap: float) -> Tensor:
        p = _softmax(logits)
        D, index = _sample(p)
        ctx.save_for_backward(p, index)
        ctx.factor = math.exp(-gap)
        return D

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        p, index = ctx.saved_tensors
        top = p.amax(-1, keepdim=True)
        q = torch.minimum(p, top * ctx.factor).scatter_(-1, index, top)
        return _pull_back(q.div_(q.sum(-1, keepdim=True)), v), None


class _GumbelRao(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, num_samples: int) -> Tensor:
        p = _softmax(logits)
        D, index = _sample(p)
        ctx.save_for_backward(p, index)
        ctx.num_samples = num_samples
        return D

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        """Categories race: the winner's time is exponential, the others' are that and an exponential over p more. At
        temperature 1 the softmax of the conditional Gumbels is the share of a reciprocal time; signs cancel in it."""
        p, index = ctx.saved_tensors
        total = torch.zeros_like(p)
        at_once = max(1, CACHED // p.numel()) if p.device.type == "cpu" else ctx.num_samples
        for first in range(0, ctx.num_samples, at_once):
            count = min(at_once, ctx.num_samples - first)
            later = p.new_empty(count, *p.shape).uniform_(LEAST, 1).log_().div_(p)
            winner = p.new_empty(count, *index.shape).uniform_(LEAST, 1).log_()
            q = later.scatter_(-1, index.expand_as(winner), 0.0).add_(winner).reciprocal_()
            q.div_(q.sum(-1, keepdim=True))
            total += (v - (q * v).sum(-1, keepdim=True)).mul_(q).sum(0)
        return total.div_(ctx.num_samples), None


def straight_through(logits: Tensor) -> Tensor:
    return _StraightThrough.apply(logits)


def gst(logits: Tensor, gap: float = 1.0) -> Tensor:
    return _GST.apply(logits, gap)


def gumbel_rao(logits: Tensor, num_samples: int) -> Tensor:
    return _GumbelRao.apply(logits, num_samples)
