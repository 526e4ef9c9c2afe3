"""Gumbel-Rao's mean over all draws, of binary variables: quadrature rules against adaptive ones."""

import functools
import itertools

import numpy as np
import pytest
import scipy.integrate
import torch

import discrete_ops as do
from discrete_ops.estimators import GumbelRao

TAUS = (0.05, 0.3, 0.8, 1.0, 1.2, 3.0, 10.0)
LOGITS = (-30.0, -9.0, -3.0, -0.5, 0.0, 1.0, 4.0, 12.0, 30.0)
ERROR = {torch.float64: 1e-10, torch.float32: 1e-6}  # of the largest


@functools.cache
def means(tau: float, lead: float) -> np.ndarray:
    """Of the other category's soft sample, and its derivatives in minus the lead and in tau.

    With both logits' Gumbel noise given that one leads, the lead d has the density of a logistic variable around
    ``lead``, cut off at 0."""
    odds = np.exp(-lead)

    def density(d: float) -> float:
        x = np.exp(-d)
        return (1 + odds) * odds * x / (x + odds) ** 2

    def soft(d: float) -> float:
        return 1 / (1 + np.exp(min(d / tau, 700)))

    def slope(d: float) -> float:
        return soft(d) * (1 - soft(d)) / tau

    ends = sorted({0.0, *(tau * 2.0**k for k in range(-2, 6)), *(max(lead, 0) + k for k in (-8, -2, 0, 2, 8, 30))})
    ends = [end for end in ends if end >= 0] + [np.inf]
    integrals = []
    for function in (soft, slope, lambda d: slope(d) * d / tau):
        pieces = [
            scipy.integrate.quad(lambda d: function(d) * density(d), a, b, epsabs=1e-15, epsrel=1e-13)[0]  # noqa: B023
            for a, b in itertools.pairwise(ends)
        ]
        integrals.append(sum(pieces))
    return np.array(integrals)


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize("tau", TAUS)
def test_is_the_integral(backend, tau, dtype):
    """Gradient, soft sample and its derivative in tau, where one wins and where it does not."""
    logits = torch.tensor(LOGITS, dtype=dtype).repeat(7).requires_grad_()
    each = torch.full_like(logits, tau, dtype=torch.float64).requires_grad_()
    x = do.bernoulli(logits, GumbelRao(tau), seed=16, backend=backend)
    soft = do.bernoulli(logits, GumbelRao(each), seed=16, backend=backend, hard=False)
    sign = 2 * x.detach() - 1
    other = torch.where(sign > 0, 1 - soft, soft)
    (slope,), (in_tau,) = torch.autograd.grad(x.sum(), logits), torch.autograd.grad(soft.sum(), each)
    got = torch.stack([other, slope, -sign * in_tau], -1).detach().numpy()
    want = np.array([means(tau, lead) for lead in (sign * logits).tolist()])
    assert {-4.0, -3.0, -1.0, -0.5, 0.5, 1.0, 3.0, 4.0} <= {*(sign * logits).tolist()}, "not both outcomes"
    assert (np.abs(got - want).max(0) <= ERROR[dtype] * np.abs(want).max(0)).all()


def test_num_samples_has_no_effect(backend):
    logits, tau = torch.linspace(-3, 3, 50), 0.6
    for hard in (True, False):
        results = []
        for k in (1, 7):
            x = logits.clone().requires_grad_()
            y = do.bernoulli(x, GumbelRao(tau, k), seed=3, backend=backend, hard=hard)
            results.append((y, torch.autograd.grad(y.sum(), x)[0]))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_large_and_small_temperatures(backend):
    """Towards infinity the soft sample is 1/2 whatever the noise; towards 0 its slope is that of a straight line
    through both outcomes, half the other one's probability."""
    logits = torch.linspace(-6, 6, 50, dtype=torch.float64, requires_grad=True)
    x = do.bernoulli(logits, GumbelRao(1e9), seed=3, backend=backend)
    (gradient,) = torch.autograd.grad(x.sum(), logits)
    torch.testing.assert_close(gradient * 1e9, torch.full_like(gradient, 0.25), rtol=1e-6, atol=0)
    for tau in (1e-7, 1e-30):
        x = do.bernoulli(logits, GumbelRao(tau), seed=3, backend=backend)
        (gradient,) = torch.autograd.grad(x.sum(), logits)
        other = torch.where(x == 1, (-logits).sigmoid(), logits.sigmoid()).detach()
        torch.testing.assert_close(gradient, other / 2, rtol=0, atol=1e-6)


def test_parameters_of_each_variable_on_both_sides_of_one(backend):
    """Lanes of one vector take the rule's two forms."""
    tau = torch.logspace(-1, 1, 13, dtype=torch.float64)
    logits = torch.linspace(-4, 4, 13, dtype=torch.float64)

    def gradient(tau):
        x = logits.clone().requires_grad_()
        return torch.autograd.grad(do.bernoulli(x, GumbelRao(tau), backend=backend, seed=3).sum(), x)[0]

    want = [gradient(float(t))[i] for i, t in enumerate(tau)]
    torch.testing.assert_close(gradient(tau), torch.stack(want), rtol=1e-12, atol=1e-14)
