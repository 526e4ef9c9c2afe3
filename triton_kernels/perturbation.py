"""The perturbation of the gapped straight-through estimator (GST Eq. 17-18, Lemma 1)."""

import triton.language as tl

from .jit import device_function
from .rows import row_max, row_sum
from .vector_math import exp, log1p


@device_function
def perturbed(z, winner, gap):
    """``l + m1 - m2`` minus the maximum: D's logit rises to the maximum, all others stay ``gap`` below it."""
    return tl.where(winner, 0.0, tl.minimum(z, -gap))


@device_function
def gap_of_log_odds(z_winner, top, others):
    """``softplus(a) / sigmoid(a)`` with ``a = z_i - logsumexp`` of the others, whose maximum is ``top`` (-inf: there
    is none) and whose ``sum(exp(z - top))`` is ``others``."""
    log_others = tl.where(top == -float("inf"), -float("inf"), log1p(tl.maximum(others - 1.0, 0.0)) + top)
    a = z_winner - log_others
    x = tl.maximum(exp(-tl.abs(a)), 1e-30)
    log = log1p(x)
    return (x + 1.0) * tl.where(a > 0, a + log, log / x)


@device_function
def pi_gap(r):
    """Lemma 1 of GST: ``-log(1 - pi_i) / pi_i``, the mean lead of a winning category i over the runner-up."""
    others = tl.where(r.winner, -float("inf"), r.z)
    top = row_max(others)
    z_winner = row_max(tl.where(r.winner, r.z, -float("inf")))
    total = row_sum(exp(others - tl.where(top == -float("inf"), 0.0, top)))
    return gap_of_log_odds(z_winner, top, total)
