"""Means over all noise of a binary variable given its outcome: what Gumbel-Rao's draws tend to, without draws.

Of two categories let A be the probability of the one that did not win. The winner's perturbed logit leads by

    lag = log(1 + R / A),

R the ratio of two exponentials, whose logarithm is logistic: a truncated logistic variable. The mean of a function
of the lag is an integral over ``t``, ``R = e^t`` up to a factor, that the trapezoidal rule takes with an error that
falls exponentially in the number of nodes: the integrand is analytic around the real line, and falls exponentially
along it. The factor puts its middle at 0, whatever A and tau are, and ``t = 1 + s + 0.02 s^3`` for equidistant s
saves nodes in its tails. Every backend has this rule, with fewer nodes for float32.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

END, STEP = 10.4, 0.2  #: Of s. To 1e-12 of the largest; 8 and 0.4 in float32 kernels, to 1e-7.
LEAST_TAU = 2.0**-60


def at_least(tau: float | Tensor) -> float | Tensor:
    """Temperatures of which the rule can take the logarithm of a lag; a lesser one is no different."""
    return tau.clamp(min=LEAST_TAU) if isinstance(tau, Tensor) else max(tau, LEAST_TAU)


def lags(log_p: Tensor, tau: float | Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Nodes of the lag and their weights, for integrands that fall as ``exp(-lag / tau)``; some ``most`` at once.

    Args:
        log_p: ``(rows, 1)`` float64, log A.
        tau: the temperature, or ``(rows, 1)`` of them.
        most: elements.

    Yields:
        both ``(nodes, rows, 1)``.
    """
    tau = torch.as_tensor(tau, dtype=log_p.dtype, device=log_p.device)
    # At a low temperature the integrand's middle is where the lag is about tau, at a high one where R is about 1.
    is_low = tau <= 1
    nodes = torch.arange(-END, END + STEP / 2, STEP, dtype=log_p.dtype, device=log_p.device)
    size = len(nodes)
    while size > 1 and size * log_p.numel() > most:  # halved by comparisons, which bind no shape under torch.compile
        size = (size + 1) // 2
    for s in nodes[:, None, None].split(size):
        t = 1 + s + 0.02 * s**3
        low = t + tau.log()
        log_ratio = torch.where(is_low, low + log_p, t)
        log_odds = torch.where(is_low, low, t - log_p)  # of R / A
        lag = log_odds.clamp(min=0) + (-log_odds.abs()).exp().log1p()
        yield lag, STEP * (1 + 0.06 * s**2) * log_ratio.sigmoid() * (-log_ratio).sigmoid()
