"""The spec: every estimator in plain PyTorch, to be read beside the papers.

GST: Fan, Chi, Rudnicky, Ramadge, ICML 2022.  BR: Wang, Bui, arXiv 2603.08257, 2026.

The whole house in two sentences. The forward pass draws ``D ~ softmax(l)`` and returns its one-hot.
The backward pass pulls the incoming gradient ``v`` back through a weighted sum of softmax Jacobian
products

    J(p, q; v) = p * (v - <q, v>),        q = p for a true softmax Jacobian,

and an estimator *is* its list of terms ``(weight, p, q)``: one short function below, one row of ``TERMS``.

Row maths runs in float64 whatever the input, so this is what the kernels are measured against. The
noise is float32 for float32 and half inputs and float64 for float64 inputs, as in every backend.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from . import philox
from .checks import LEAST_TAU, MOST_TAU

CHUNK = 2**20  #: Elements of noise held at once: memory does not grow with the number of draws.

Weight = float | Tensor


class Term(NamedTuple):
    """``weight * J(p, q; v)``; p is ``(rows, N)`` or ``(draws, rows, N)``, then summed over draws."""

    weight: Weight
    p: Tensor
    q: Tensor


class Rows(NamedTuple):
    """What a pull-back may depend on: the inputs of the call as ``(rows, N)``, invalid rows neutralised."""

    l: Tensor  # noqa: E741  (the papers' name) logits, float64, maximum 0
    D: Tensor  # one-hot of the sampled index, float64
    tau: Weight  # float, or (rows, 1)
    coefficient: float  # the gap of GST, eta of ReinMax-CV, beta of RK2
    num_samples: int  # K
    seed: Tensor  # (S,) int64
    noise: torch.dtype  # float32 or float64


# ---------------------------------------------------------------------------------------------------
# Building blocks


def jacobian_product(p: Tensor, q: Tensor, v: Tensor) -> Tensor:
    """``J(p, q; v) = p * (v - <q, v>)`` along the last dimension."""
    return p * (v - (q * v).sum(-1, keepdim=True))


def J(weight: Weight, p: Tensor, q: Tensor | None = None) -> Term:
    return Term(weight, p, p if q is None else q)


def tempered_softmax(l: Tensor, tau: Weight = 1.0) -> Tensor:  # noqa: E741
    """``softmax(l / tau)``; the maximum goes first, so that no logit overflows however small tau is."""
    return ((l - l.amax(-1, keepdim=True)) / tau).softmax(-1)


def conditional_gumbels(rows: Rows, lp: Tensor, first: int, count: int) -> Iterator[Tensor]:
    """``softmax(Y(l, D, k) / tau)`` for the draws ``k = first .. first + count - 1``, in chunks.

    ``Y(l, D)`` is ``l + G`` given that its argmax is D. With ``lp`` the normalised log-probabilities and
    E exponential noise, ``Y_j - Y_i = -softplus(log E_j - log E_i - lp_j)``: at most 0, exactly 0 at
    the winner, and free of ``exp(l)``, so nothing overflows at any logits or tau.

    Yields:
        ``(chunk, rows, N)``.
    """
    n, columns = lp.shape
    winner = rows.D.bool()
    size = count
    while size > 1 and size * lp.numel() > CHUNK:  # halved by comparisons, which bind no shape under torch.compile
        size = (size + 1) // 2
    for start in range(first, first + count, size):
        draw = torch.arange(start, min(start + size, first + count), device=lp.device)
        log_e = philox.exponential(rows.seed, draw, n, columns, rows.noise).double().log()
        log_e_winner = (log_e * rows.D).sum(-1, keepdim=True)
        y = -softplus(log_e - log_e_winner - lp, threshold=40.0)
        yield (y.masked_fill(winner, 0.0) / rows.tau).softmax(-1)


def perturbed(l: Tensor, D: Tensor, gap: Weight) -> Tensor:  # noqa: E741
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


def through_perturbation(r: Rows, pulled: Tensor, gap: Weight) -> Tensor:
    """Backward of ``h = l + m1 - m2`` through m1 and m2 (NZ-GST): what h took from ``max(l)`` goes back to it."""
    top = r.l.amax(-1, keepdim=True)
    taken, is_top = r.D.bool() | (r.l > top - gap), r.l == top
    back = pulled.masked_fill(~taken, 0.0).sum(-1, keepdim=True) / is_top.sum(-1, keepdim=True)
    return pulled.masked_fill(taken, 0.0) + back * is_top


# ---------------------------------------------------------------------------------------------------
# The estimators: each is its list of terms


def straight_through(r: Rows) -> Iterable[Term]:
    """GST Eq. 7, BR Eq. 3."""
    yield J(1 / r.tau, tempered_softmax(r.l, r.tau))


def gumbel_rao(r: Rows) -> Iterable[Term]:
    """GST Eq. 11, BR Eq. 6-7 (with the 1/K that Eq. 6 lacks); K = 1 is STGS, GST Eq. 10, BR Eq. 5."""
    for y in conditional_gumbels(r, r.l.log_softmax(-1), first=0, count=r.num_samples):
        yield J(1 / (r.num_samples * r.tau), y)


def gst(r: Rows) -> Iterable[Term]:
    """GST Eq. 17-19, Algorithm 1."""
    yield J(1 / r.tau, tempered_softmax(perturbed(r.l, r.D, r.coefficient), r.tau))


def gst_pi(r: Rows) -> Iterable[Term]:
    """GST with the gap of Lemma 1."""
    yield J(1 / r.tau, tempered_softmax(perturbed(r.l, r.D, pi_gap(r.l, r.D)), r.tau))


def reinmax(r: Rows) -> Iterable[Term]:
    """BR Eq. 12, 16."""
    yield J(2, (tempered_softmax(r.l, r.tau) + r.D) / 2)
    yield J(-1 / 2, tempered_softmax(r.l))


def reinmax_argmax(r: Rows) -> Iterable[Term]:
    """The diagnostic of BR Table 1: ReinMax with the argmax where the sample belongs."""
    return reinmax(r._replace(D=one_hot(r.l.argmax(-1), r.l.shape[-1]).to(r.l)))


def _log_p_D(r: Rows, tau: Weight) -> Tensor:
    """``log((softmax(l / tau) + D) / 2)`` without leaving the log domain off the sample."""
    log_pi = (r.l / tau).log_softmax(-1)
    return torch.where(r.D.bool(), log_pi.exp().log1p(), log_pi) - math.log(2)


def reinmax_rao(r: Rows) -> Iterable[Term]:
    """BR Eq. 17; the last term is at temperature 1."""
    for y in conditional_gumbels(r, _log_p_D(r, r.tau), first=0, count=r.num_samples):
        yield J(2 / (r.num_samples * r.tau), y)
    yield J(-1 / 2, tempered_softmax(r.l))


def _reinmax_cv(r: Rows, control: Term) -> Iterable[Term]:
    eta, l_D = r.coefficient, _log_p_D(r, 1.0)
    yield J(2, l_D.exp())
    yield control._replace(weight=-eta * control.weight)
    for y in conditional_gumbels(r, l_D, first=1, count=r.num_samples):
        yield J(eta / (r.num_samples * r.tau), y)
    yield J(-1 / 2, tempered_softmax(r.l))


def reinmax_cv(r: Rows) -> Iterable[Term]:
    """BR Eq. 18; the control is the ReinMax term nudged by the soft sample that chose D."""
    (soft_sample,) = conditional_gumbels(r, r.l.log_softmax(-1), first=0, count=1)
    return _reinmax_cv(r, J(1, tempered_softmax(_log_p_D(r, 1.0) + soft_sample[0])))


def reinmax_cv_gumbel(r: Rows) -> Iterable[Term]:
    """BR Eq. 18 with draw 0 of the Rao term as its control: ReinMax's mean exactly, more variance."""
    (y,) = conditional_gumbels(r, _log_p_D(r, 1.0), first=0, count=1)
    return _reinmax_cv(r, J(1 / r.tau, y[0]))


def reinmax_rk2(r: Rows) -> Iterable[Term]:
    """BR Eq. 27, at temperature 1."""
    beta, pi = r.coefficient, tempered_softmax(r.l)
    yield J(2, (pi + r.D) / 2, beta * pi + (1 - beta) * r.D)
    yield J(-beta, pi)


#: The table of the family. A row's place is its number in the compiled backends.
TERMS: dict[str, Callable[[Rows], Iterable[Term]]] = {
    "straight_through": straight_through,
    "gumbel_rao": gumbel_rao,
    "gst": gst,
    "gst_pi": gst_pi,
    "reinmax": reinmax,
    "reinmax_argmax": reinmax_argmax,
    "reinmax_rao": reinmax_rao,
    "reinmax_cv": reinmax_cv,
    "reinmax_cv_gumbel": reinmax_cv_gumbel,
    "reinmax_rk2": reinmax_rk2,
}


#: Before "gst" or "gst_pi": the same sample and h, with the gradient through m1 and m2 too. In this backend alone.
NONZERO = "nonzero_"


# ---------------------------------------------------------------------------------------------------
# The two row kernels (and the soft forward), with the row rules: -inf masks a category, a row masked
# whole gives zeros, NaN or +inf in a row gives NaN; the index of the last two is -1


def _as_rows(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits as ``(rows, N)`` float64 with maximum 0, and which rows are NaN / masked whole, ``(rows, 1)``."""
    l = logits.reshape(-1, logits.shape[-1]).double()  # noqa: E741
    top = l.amax(-1, keepdim=True)
    invalid, empty = top.isnan() | (top == torch.inf), top == -torch.inf
    return torch.where(invalid | empty, 0.0, l - top), invalid, empty


def _as_output(rows: Tensor, invalid: Tensor, empty: Tensor, like: Tensor) -> Tensor:
    rows = rows.masked_fill(empty, 0.0).masked_fill(invalid, torch.nan)
    return rows.view(like.shape).to(like.dtype, copy=True)  # not a view: those may not be changed in place


def sample(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Draw ``D ~ softmax(logits)`` by the inverse CDF, accumulated in float64 so that no category hides.

    Args:
        logits: ``(..., N)``.
        seed: ``(S,)`` int64.

    Returns:
        one-hot ``(..., N)`` like ``logits``, index ``(...)`` int64.
    """
    l, invalid, empty = _as_rows(logits)  # noqa: E741
    cdf = l.exp().cumsum(-1)
    target = philox.uniform(seed, len(l)) * cdf[:, -1:]  # below the total, since uniform <= 1 - 2**-53
    index = (cdf <= target).sum(-1, keepdim=True)
    D = torch.zeros_like(l).scatter_(-1, index, 1.0)
    index = index.masked_fill(invalid | empty, -1)
    return _as_output(D, invalid, empty, logits), index.view(logits.shape[:-1])


def _sum_over_draws(x: Tensor) -> Tensor:
    return x.sum(0) if x.ndim == 3 else x


def _rows(
    logits: Tensor, index: Tensor, seed: Tensor, tau: Weight, coefficient: float, num_samples: int
) -> tuple[Rows, Tensor, Tensor]:
    l, invalid, empty = _as_rows(logits)  # noqa: E741
    D = torch.zeros_like(l).scatter_(-1, index.reshape(-1, 1).clamp_min(0), 1.0)
    if isinstance(tau, Tensor):  # (T,): T equal groups of rows; NaN shows a bad one without a sync
        tau = tau.to(l).reshape(-1, 1)
        tau = torch.where((tau >= LEAST_TAU) & (tau <= MOST_TAU), tau, torch.nan)
        tau = tau.repeat_interleave(len(l) // len(tau), 0) if len(tau) > 1 else tau
    noise = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return Rows(l, D, tau, coefficient, num_samples, seed, noise), invalid, empty


def surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    tau: Weight,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    """The soft sample of an estimator whose pull-back is the Jacobian of one: ``tau * sum weight * p``.

    Args as :func:`surrogate_vjp`. Returns ``(..., N)`` like ``logits``.
    """
    rows, invalid, empty = _rows(logits, index, seed, tau, coefficient, num_samples)
    soft = torch.zeros_like(rows.l)
    for weight, p, _ in TERMS[estimator.removeprefix(NONZERO)](rows):
        soft = soft + _sum_over_draws(rows.tau * weight * p)
    return _as_output(soft, invalid, empty, logits)


def surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    tau: Weight,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    """Pull ``grad`` (the ``v`` of the papers) back to the logits: ``sum over terms of weight * J(p, q; v)``.

    Args:
        grad: ``(..., N)``, gradient at the sample.
        logits: ``(..., N)``.
        index: ``(...)`` int64, as :func:`sample` returned it.
        seed: ``(S,)`` int64, as :func:`sample` took it.
        tau: temperature, a float or a tensor of T elements for T equal groups of rows.
        estimator: a key of ``TERMS``.
        coefficient: gap, eta or beta.
        num_samples: K.

    Returns:
        ``(..., N)`` like ``logits``.
    """
    rows, invalid, empty = _rows(logits, index, seed, tau, coefficient, num_samples)
    v = grad.reshape(rows.l.shape).to(rows.l).masked_fill(rows.l == -torch.inf, 0.0)
    pulled = torch.zeros_like(v)
    for weight, p, q in TERMS[estimator.removeprefix(NONZERO)](rows):
        pulled = pulled + _sum_over_draws(weight * jacobian_product(p, q, v))
    if estimator.startswith(NONZERO):
        pulled = through_perturbation(rows, pulled, pi_gap(rows.l, rows.D) if estimator.endswith("pi") else coefficient)
    return _as_output(pulled, invalid, empty, logits)
