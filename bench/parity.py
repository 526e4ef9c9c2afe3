"""The gate of a timing: a formulation has the law and the mean gradient of ours, or it is not timed.

Every row has the same logits and the same incoming gradient. The winners are held to the softmax by a chi-squared test.
The gradients of the rows with the same winner, which for some estimators is one gradient and for others a random one,
are held to ours by their means.
"""

from dataclasses import dataclass

import scipy.stats
import torch
from torch import Tensor

from .formulations import Formulation

SAMPLES = 40_000
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
    logits, v = (torch.randn(columns, generator=generator).to(device, dtype) for _ in range(2))
    law = logits.double().softmax(-1)
    (won, gradient), (our_winners, our_gradient) = (_drawn(f, logits, v, rows) for f in (theirs, ours))
    counts = torch.bincount(won, minlength=columns).double()
    often = law * len(won) >= 5  # rarer ones are counted together, or not at all
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    expected = torch.cat([law[often], law[~often].sum()[None]]) * len(won)
    observed, expected = observed[expected > 0], expected[expected > 0]
    p = float(scipy.stats.chisquare(observed.cpu(), expected.cpu() * (observed.sum() / expected.sum()).cpu()).pvalue)
    rounding = 8 * torch.finfo(dtype).eps * float(our_gradient.abs().max())
    sigmas = 0.0
    for winner in range(columns):
        mine, other = our_gradient[our_winners == winner], gradient[won == winner]
        if min(len(mine), len(other)) >= LEAST_SAMPLES:
            error = (mine.var(0) / len(mine) + other.var(0) / len(other) + rounding**2).sqrt()
            sigmas = max(sigmas, float(((mine.mean(0) - other.mean(0)).abs() / error).max()))
    faults = []
    if not p >= LEAST_P:
        faults.append(f"law: chi-squared p {p:.1e}, allowed: {LEAST_P:g} or more")
    if not sigmas <= MOST_SIGMAS:
        faults.append(f"gradient: {sigmas:.1f} standard errors from ours, allowed: {MOST_SIGMAS:g}")
    if not bool(gradient.isfinite().all()):
        faults.append("gradient: not finite")
    return Parity(p, sigmas, "; ".join(faults))


def _drawn(formulation: Formulation, logits: Tensor, v: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Winners and gradients, in double precision, of ``SAMPLES`` rows or some more."""
    copies = logits.repeat(rows, 1).requires_grad_()
    winners, gradients = [], []
    for _ in range(-(-SAMPLES // rows)):
        sample = formulation(copies)
        (gradient,) = torch.autograd.grad(sample, copies, v.expand_as(copies))
        winners.append(sample.detach().argmax(-1))
        gradients.append(gradient.double())
    return torch.cat(winners), torch.cat(gradients)
