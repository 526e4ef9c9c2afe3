"""Mean and spread of an estimator's gradient, exact in the sample that it draws.

An estimator pulls a loss's gradient ``v(D)`` back to the logits of latent l by a matrix ``M_l`` of that latent's
logits, sample ``i = D_l`` and noise alone: ``g_l(D) = M_l v_l(D)``. With the matrices' two moments over the noise,

    E[g_l]       = sum_i  E[M_l | i] first_l,i           first_l,i  = sum over D with D_l = i of p(D) v_l(D)
    E[|g_l|^2]   = sum_i  <E[M_l' M_l | i], second_l,i>  second_l,i = the same of p(D) v_l(D) v_l(D)'

so that a problem, however many its codes, is its ``first`` and ``second``, and no code is drawn. Most estimators have
no noise but D; the moments of those with Gumbel noise are means over draws of it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from discrete_ops.estimators import Estimator

CHUNK = 2**20  #: numbers of a gradient that are held at once


class Problem(NamedTuple):
    """The gradient of ``E[f(D)]`` at the logits, and what estimators of it see.

    Attributes:
        logits: ``(L, N)``.
        exact: ``(L, N)``, the gradient.
        first: ``(L, N, N)``: latent, its sample, entry.
        second: ``(L, N, N, N)``: latent, its sample, entry, entry.
    """

    logits: Tensor
    exact: Tensor
    first: Tensor
    second: Tensor


class Figures(NamedTuple):
    """Of an estimator on a problem, the whole gradient as one vector; relative to the exact gradient's norm."""

    bias: float  #: the norm of the mean gradient less the exact one
    std: float  #: the root of the total variance
    norm: float  #: of the mean gradient
    cosine: float  #: of the mean gradient to the exact one


class Jacobians(NamedTuple):
    """Moments of an estimator's matrices, float64.

    Attributes:
        means: ``(2, L, N, N, N)``: two independent halves of the noise, latent, its sample, row, column; the same twice
            without noise.
        square: ``(L, N, N, N)``, of ``M' M``.
    """

    means: Tensor
    square: Tensor


def problem(logits: Tensor, codes: Tensor, p: Tensor, loss: Tensor, v: Tensor) -> Problem:
    """Of an enumeration.

    Args:
        logits: ``(L, N)``.
        codes: ``(C, L)`` int64, every code's categories.
        p, loss: ``(C,)`` float64.
        v: ``(C, L, N)``, the loss's gradient at each code.
    """
    pi = logits.double().softmax(-1)
    L, N = logits.shape
    D = torch.nn.functional.one_hot(codes, N).double()
    mean = p @ loss
    exact = torch.einsum("c,cln->ln", p * (loss - mean), D - pi)  # less its mean, which changes nothing but rounding
    first, second = torch.zeros(L, N, N, dtype=torch.float64), torch.zeros(L, N, N, N, dtype=torch.float64)
    for l in range(L):  # noqa: E741
        for i in range(N):
            mine = codes[:, l] == i
            weighted = v[mine, l].double() * p[mine, None]
            first[l, i], second[l, i] = weighted.sum(0), weighted.T @ v[mine, l].double()
    return Problem(logits, exact, first, second)


def jacobians(estimator: Estimator, logits: Tensor, draws: int) -> Jacobians:
    """Moments of the estimator's matrices at ``(L, N)`` logits.

    Args:
        draws: of Gumbel noise for each latent and sample. A call that averages over K of them counts as K, up to 8.
    """
    pull = _pull_back(estimator)
    seeds = torch.arange(2)
    if torch.equal(*(_matrices(pull, logits, seed[None], 1) for seed in seeds)):  # no noise but the sample
        matrix = _matrices(pull, logits, seeds[:1], 1)[0]
        return Jacobians(torch.stack([matrix, matrix]), torch.einsum("lirj,lirk->lijk", matrix, matrix))
    replicates = math.ceil(draws / 2 / min(getattr(estimator, "num_samples", 1), 8))
    L, N = logits.shape
    means, square, done = [], torch.zeros(L, N, N, N, dtype=torch.float64), 0
    for _ in range(2):
        total, left = torch.zeros(L, N, N, N, dtype=torch.float64), replicates
        while left:
            count = min(left, max(CHUNK // (L * N**3), 1))
            M = _matrices(pull, logits, torch.tensor([done]), count)
            total += M.sum(0)
            square += torch.einsum("mlirj,mlirk->lijk", M, M)
            left, done = left - count, done + count  # the number of those before is the seed
        means.append(total / replicates)
    return Jacobians(torch.stack(means), square / (2 * replicates))


def figures(found: Jacobians, problem: Problem) -> Figures:
    """What the moments say of the problem.

    The squares of the bias and of the mean's norm are products of the two halves, so that noise does not add to them.
    """
    means = torch.einsum("hlirj,lij->hlr", found.means, problem.first)
    second = (found.square * problem.second).sum()
    exact = problem.exact
    norm, off = exact.norm(), means - exact
    mean = means.mean(0)
    of_mean = (means[0] * means[1]).sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Figures(
        bias=float((off[0] * off[1]).sum().clamp_min(0).sqrt() / norm),
        std=float((second - of_mean).clamp_min(0).sqrt() / norm),
        norm=float(of_mean.sqrt() / norm),
        cosine=float((mean * exact).sum() / (of_mean.sqrt() * norm)),
    )


#: ``pull(grad, logits, index, seed)``.
Pull = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class _Seen(TorchDispatchMode):
    """Takes down the operator's call."""

    call: tuple[Any, ...] = ()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.discrete_ops.draw.default:
            self.call = args
        return function(*args, **(kwargs or {}))


def _pull_back(estimator: Estimator) -> Pull:
    """The estimator's pull-back of a sample that is given: what no public function has, its operator does."""
    with _Seen() as seen:
        estimator(torch.zeros(1, 2), seed=0)
    _, _, parameters, _, *spec = seen.call

    def pull(grad: Tensor, logits: Tensor, index: Tensor, seed: Tensor) -> Tensor:
        return torch.ops.discrete_ops.pull_back(grad, logits, index, seed, parameters, False, *spec)

    return pull


def _matrices(pull: Pull, logits: Tensor, seed: Tensor, count: int) -> Tensor:
    """``(count, L, N, N, N)``: noise, latent, its sample, row, column: the pull-backs of all unit vectors."""
    L, N = logits.shape
    shape = (N, count, L, N, N)  # the unit vectors first: with one seed for each of them they meet the same noise
    units = torch.eye(N).view(N, 1, 1, 1, N).expand(shape).contiguous()
    index = torch.arange(N).expand(shape[:-1]).contiguous()
    rows = logits.float()[:, None, :].expand(shape).contiguous()
    return pull(units, rows, index, seed.expand(N).contiguous()).permute(1, 2, 3, 4, 0).double()
