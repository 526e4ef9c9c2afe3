"""The gate of a timing: a formulation has the law and the mean gradient of ours, or it is not timed.

Every row has the same logits and the same incoming gradient. The winners are held to the softmax by a chi-squared test.
The gradients of the rows with the same winner, which for some estimators is one gradient and for others a random one,
are held to ours by their means.
"""

import math
from dataclasses import dataclass

import scipy.stats
import torch
from torch import Tensor

from .formulations import Formulation

SAMPLES = 40_000  #: rows, or of long ones as many as have so many elements:
ELEMENTS = 2**24
COMMON = 16  #: categories that share half of the probability, so that a long row has winners to count
LEAST_P = 1e-6  #: of the chi-squared test
MOST_SIGMAS = 6.0
LEAST_SAMPLES = 50  #: of a winner whose gradient is compared


@dataclass(frozen=True)
class Parity:
    """Attributes:
    p: of the chi-squared test of the winners.
    sigmas: the largest distance of two mean gradients, in standard errors.
    fault: what is wrong with it; empty if nothing is.
    """

    p: float
    sigmas: float
    fault: str

    @property
    def holds(self) -> bool:
        return not self.fault


def check(
    theirs: Formulation,
    ours: Formulation,
    rows: int,
    columns: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Parity:
    generator = torch.Generator().manual_seed(columns)
    logits, v = (torch.randn(columns, generator=generator) for _ in range(2))
    logits[:COMMON] += max(0.0, math.log(columns / COMMON))
    logits, v = logits.to(device, dtype), v.to(device, dtype)
    law = logits.double().softmax(-1)
    (won, gradient), (our_winners, our_gradient) = (_drawn(f, logits, v, rows) for f in (theirs, ours))
    counts, our_counts = (torch.bincount(winners, minlength=columns) for winners in (won, our_winners))
    often = law * len(won) >= 5  # rarer ones are counted together, or not at all
    observed = torch.cat([counts[often], counts[~often].sum()[None]]).double()
    expected = torch.cat([law[often], law[~often].sum()[None]]) * len(won)
    observed, expected = observed[expected > 0].cpu(), expected[expected > 0].cpu()
    p = float(scipy.stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)
    rounding = 2 * torch.finfo(dtype).eps * float(our_gradient.abs().max())
    sigmas = 0.0
    often = torch.minimum(counts, our_counts) >= LEAST_SAMPLES
    for winner in often.nonzero().flatten().tolist():
        mine, other = our_gradient[our_winners == winner], gradient[won == winner]
        error = (mine.var(0) / len(mine) + other.var(0) / len(other) + rounding**2).sqrt()
        sigmas = max(sigmas, float(((mine.mean(0) - other.mean(0)).abs() / error).max()))
    faults = []
    if not p >= LEAST_P:
        faults.append(f"law: chi-squared p {p:.1e}, allowed: {LEAST_P:g} or more")
    if not bool(often.any()):
        faults.append(f"gradient: no category won {LEAST_SAMPLES} times in both, so that none was compared")
    if not sigmas <= MOST_SIGMAS:
        faults.append(f"gradient: {sigmas:.1f} standard errors from ours, allowed: {MOST_SIGMAS:g}")
    if not bool(gradient.isfinite().all()):
        faults.append("gradient: not finite")
    return Parity(p, sigmas, "; ".join(faults))


def _drawn(formulation: Formulation, logits: Tensor, v: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Winners and gradients, in double precision."""
    samples = min(SAMPLES, ELEMENTS // len(logits))
    copies = logits.repeat(rows, 1).requires_grad_()
    winners, gradients = [], []
    for _ in range(-(-samples // rows)):
        sample = formulation(copies)
        (gradient,) = torch.autograd.grad(sample, copies, v.expand_as(copies))
        winners.append(sample.detach().argmax(-1))
        gradients.append(gradient.double())
    return torch.cat(winners), torch.cat(gradients)
