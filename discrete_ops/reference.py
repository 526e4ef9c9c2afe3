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
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from . import philox, quadrature
from .conditional_gumbel import CHUNK, conditional_gumbels, the_draws
from .minimum_variance import MinimumVariance
from .perturbation import into_perturbation, perturbed, pi_gap, through_perturbation
from .variants import (
    ALL_DRAWS,
    BINARY,
    BINARY_NUMBER,
    NONZERO,
    STRATIFIED,
    STRATIFIED_NUMBER,
    WITH_DRAWS,
    is_binary,
    is_stratified,
    row_of,
    without_binary,
)

#: Temperatures whose inverse is a normal float32 too.
LEAST_TAU = torch.finfo(torch.float32).tiny
MOST_TAU = 1 / LEAST_TAU

Weight = float | Tensor
#: ``(tau, coefficient, sample_tau)`` of all rows, or a ``(T, 3)`` float64 tensor for T equal groups of rows.
Parameters: TypeAlias = tuple[float, float, float] | Tensor
AT_ONE = (1.0, 0.0, 1.0)  #: Parameters at temperature 1.


class Term(NamedTuple):
    """``weight * J(p, q; v)``; p is ``(rows, N)`` or ``(draws, rows, N)``, then summed over draws."""

    weight: Weight
    p: Tensor
    q: Tensor
    of: MinimumVariance | None = None  #: ``weight * J(p, q; of(v))``: another gradient, linear in v


class Rows(NamedTuple):
    """What a pull-back may depend on: the inputs of the call as ``(rows, N)``, invalid rows neutralised."""

    l: Tensor  # noqa: E741  (the papers' name) logits, float64, maximum 0
    D: Tensor  # one-hot of the sampled index, float64
    tau: Weight  # float, or (rows, 1)
    coefficient: Weight  # the gap of GST, eta of ReinMax-CV, beta of RK2, a of the mix, temperature of MVE
    num_samples: int  # K
    stratified: bool  # whether the K draws are a Latin hypercube
    seed: Tensor  # (S,) int64
    first_row: int  # its number, for the noise
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


# ---------------------------------------------------------------------------------------------------
# The estimators: each is its list of terms


def straight_through(r: Rows) -> Iterable[Term]:
    """GST Eq. 7, BR Eq. 3."""
    yield J(1 / r.tau, tempered_softmax(r.l, r.tau))


def gumbel_rao(r: Rows) -> Iterable[Term]:
    """GST Eq. 11, BR Eq. 6-7 (with the 1/K that Eq. 6 lacks); K = 1 is STGS, GST Eq. 10, BR Eq. 5."""
    if r.num_samples == ALL_DRAWS:
        yield from gumbel_rao_of_all_draws(r)
        return
    for y in the_draws(r, r.l.log_softmax(-1), first=0):
        yield J(1 / (r.num_samples * r.tau), y)


def gumbel_rao_of_all_draws(r: Rows) -> Iterable[Term]:
    """Its limit in K, of two categories: the nodes of an integral where the draws were."""
    winner = r.D.bool()
    log_p = r.l.log_softmax(-1).masked_fill(winner, 0.0).sum(-1, keepdim=True)  # of the other one
    rest: Weight = 1.0  # where the lag is beyond the nodes, a soft sample is D
    for lag, weight in quadrature.lags(log_p, r.tau, CHUNK):
        yield J(weight / r.tau, (torch.where(winner, 0.0, -lag) / r.tau).softmax(-1))
        rest = rest - weight.sum(0)
    yield J(rest / r.tau, r.D)


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
    for y in the_draws(r, _log_p_D(r, r.tau), first=0):
        yield J(2 / (r.num_samples * r.tau), y)
    yield J(-1 / 2, tempered_softmax(r.l))


def _reinmax_cv(r: Rows, control: Term) -> Iterable[Term]:
    eta, l_D = r.coefficient, _log_p_D(r, 1.0)
    yield J(2, l_D.exp())
    yield control._replace(weight=-eta * control.weight)
    for y in the_draws(r, l_D, first=1):
        yield J(eta / (r.num_samples * r.tau), y)
    yield J(-1 / 2, tempered_softmax(r.l))


def reinmax_cv(r: Rows) -> Iterable[Term]:
    """BR Eq. 18; the control is the ReinMax term nudged by the soft sample that chose D, over tau."""
    (soft_sample,) = conditional_gumbels(r, r.l.log_softmax(-1), first=0, count=1)
    return _reinmax_cv(r, J(1 / r.tau, tempered_softmax(_log_p_D(r, 1.0) + soft_sample[0])))


def reinmax_cv_gumbel(r: Rows) -> Iterable[Term]:
    """BR Eq. 18 with draw 0 of the Rao term as its control: ReinMax's mean exactly, more variance."""
    (y,) = conditional_gumbels(r, _log_p_D(r, 1.0), first=0, count=1)
    return _reinmax_cv(r, J(1 / r.tau, y[0]))


def reinmax_rk2(r: Rows) -> Iterable[Term]:
    """BR Eq. 27, at temperature 1."""
    beta, pi = r.coefficient, tempered_softmax(r.l)
    yield J(2, (pi + r.D) / 2, beta * pi + (1 - beta) * r.D)
    yield J(-beta, pi)


def mix(r: Rows) -> Iterable[Term]:
    """Straight-through at a = 0, ReinMax at a = 1 (ST-ZGR of Hooper and Shekhovtsov, AISTATS 2026): ``(1 - a / 2) J(pi;
    v) + a / 2 <v, D - pi> (D - pi)``, whose mean is BR Eq. 26 at beta = a / 2; the outer product is
    ``4 J((pi + D) / 2) - 2 J(pi)``."""
    a, pi = r.coefficient, tempered_softmax(r.l)
    yield J(2 * a, (pi + r.D) / 2)
    yield J(1 - 3 * a / 2, pi)


def mve(r: Rows) -> Iterable[Term]:
    """The minimum-variance estimator of Hooper and Shekhovtsov, AISTATS 2026, derived in :mod:`.minimum_variance`."""
    pi = tempered_softmax(r.l)
    yield J(1, pi)._replace(of=MinimumVariance(pi, r.D, r.coefficient))


#: The table of the family.
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
    "mix": mix,
    "mve": mve,
}

#: The number of every estimator in the compiled backends.
NUMBERS = {name: number for number, name in enumerate(TERMS)}
NUMBERS |= {STRATIFIED + name: STRATIFIED_NUMBER + NUMBERS[name] for name in WITH_DRAWS}
NUMBERS |= {BINARY + name: BINARY_NUMBER + number for name, number in NUMBERS.items()}

#: Whose pull-back is the Jacobian of a soft sample: they have one, and a derivative in tau.
WITH_SOFT_SAMPLE = (
    "straight_through",
    "gumbel_rao",
    STRATIFIED + "gumbel_rao",
    "gst",
    "gst_pi",
    NONZERO + "gst",
    NONZERO + "gst_pi",
)
#: Whose pull-back is no symmetric matrix, as softmax Jacobians and their sums are.
ASYMMETRIC = ("reinmax_rk2", "mve", NONZERO + "gst", NONZERO + "gst_pi")


# ---------------------------------------------------------------------------------------------------
# The row kernels: the sample, its pull-back, the soft sample and its derivative in tau. The row rules: -inf masks a
# category, a row masked whole gives zeros, NaN or +inf in a row gives NaN; the index of the last two is -1. Of a binary
# variable +inf masks the other category, and NaN alone gives NaN


def _as_rows(logits: Tensor, binary: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Logits as ``(rows, N)`` float64 with maximum 0, and which rows are NaN / masked whole, ``(rows, 1)``."""
    if binary:
        l = logits.reshape(-1, 1).double()  # noqa: E741
        invalid = l.isnan()
        l = torch.cat([l, -l], -1).clamp(max=0).masked_fill(invalid, 0.0)  # noqa: E741
        return l, invalid, torch.zeros_like(invalid)
    l = logits.reshape(-1, logits.shape[-1]).double()  # noqa: E741
    top = l.amax(-1, keepdim=True)
    invalid, empty = top.isnan() | (top == torch.inf), top == -torch.inf
    return torch.where(invalid | empty, 0.0, l - top), invalid, empty


def _as_output(rows: Tensor, invalid: Tensor, empty: Tensor, like: Tensor) -> Tensor:
    if rows.shape[-1] > like.shape[-1]:  # of binary variables
        rows = rows[:, :1]
    rows = rows.masked_fill(empty, 0.0).masked_fill(invalid, torch.nan)
    return rows.view(like.shape).to(like.dtype, copy=True)  # not a view: those may not be changed in place


def _parameters(parameters: Parameters, rows: int) -> tuple[Weight, Weight, Weight]:
    """tau, coefficient and sample_tau as floats, or ``(rows, 1)``; NaN shows a bad temperature without a sync."""
    if not isinstance(parameters, Tensor):
        return parameters
    groups = len(parameters)
    each = parameters.repeat_interleave(rows // groups, 0) if groups > 1 else parameters
    tau, coefficient, sample_tau = each.split(1, -1)
    return _checked(tau), coefficient, _checked(sample_tau)


def _checked(tau: Tensor) -> Tensor:
    return torch.where((tau >= LEAST_TAU) & (tau <= MOST_TAU), tau, torch.nan)


def sample(
    logits: Tensor, seed: Tensor, parameters: Parameters = AT_ONE, first_row: int = 0, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw ``D ~ softmax(logits / sample_tau)`` by the inverse CDF, accumulated in float64 so that no category hides.

    Args:
        logits: ``(..., N)``.
        seed: ``(S,)`` int64.
        parameters: ``(tau, coefficient, sample_tau)``, or ``(T, 3)`` float64 for T equal groups of rows.
        first_row: number of the first row, for the noise.
        binary: whether the logits are ``(..., 1)``, of binary variables.

    Returns:
        one-hot ``(..., N)`` like ``logits``, index ``(...)`` int64.
    """
    l, invalid, empty = _as_rows(logits, binary)  # noqa: E741
    sample_tau = _parameters(parameters, len(l))[2]
    if isinstance(sample_tau, Tensor):
        invalid = invalid | sample_tau.isnan()
    cdf = (l / sample_tau).exp().cumsum(-1)
    target = philox.uniform(seed, len(l), first_row) * cdf[:, -1:]  # below the total, since uniform <= 1 - 2**-53
    index = (cdf <= target).sum(-1, keepdim=True).masked_fill(invalid, 0)
    D = torch.zeros_like(l).scatter_(-1, index, 1.0)
    index = index.masked_fill(invalid | empty, -1)
    return _as_output(D, invalid, empty, logits), index.view(logits.shape[:-1])


def _sum_over_terms(rows: Rows, estimator: str, of_term: Callable[[Term], Tensor]) -> Tensor:
    """Of the estimator's terms, and their draws."""
    total = torch.zeros_like(rows.l)
    for term in TERMS[row_of(estimator)](rows):
        x = of_term(term)
        total = total + (x.sum(0) if x.ndim == 3 else x)
    return total


def _rows(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int,
) -> tuple[Rows, Tensor, Tensor]:
    l, invalid, empty = _as_rows(logits, is_binary(estimator))  # noqa: E741
    D = torch.zeros_like(l).scatter_(-1, index.reshape(-1, 1).clamp_min(0), 1.0)
    tau, coefficient, _ = _parameters(parameters, len(l))
    if num_samples == ALL_DRAWS:
        tau = quadrature.at_least(tau)
    noise = torch.float64 if logits.dtype == torch.float64 else torch.float32
    stratified = is_stratified(estimator)
    return Rows(l, D, tau, coefficient, num_samples, stratified, seed, first_row, noise), invalid, empty


def check_soft(estimator: str) -> None:
    """Raises ValueError for an estimator without a soft sample."""
    if without_binary(estimator) not in WITH_SOFT_SAMPLE:
        raise ValueError(f"estimator: got {estimator!r}, allowed: {', '.join(map(repr, WITH_SOFT_SAMPLE))}")


def surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """The soft sample of an estimator ``WITH_SOFT_SAMPLE``: ``tau * sum weight * p``.

    Args as :func:`surrogate_vjp`. Returns ``(..., N)`` like ``logits``.
    """
    check_soft(estimator)
    rows, invalid, empty = _rows(logits, index, seed, parameters, estimator, num_samples, first_row)
    soft = _sum_over_terms(rows, estimator, lambda term: rows.tau * term.weight * term.p)
    return _as_output(soft.clamp(max=1.0), invalid, empty, logits)  # tau * (1 / tau) may be more


def tau_derivative(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """The derivative of :func:`surrogate` in tau, row by row: ``sum weight * J(p; -log p)``.

    Args as :func:`surrogate_vjp`. Returns ``(..., N)`` like ``logits``.
    """
    check_soft(estimator)
    rows, invalid, empty = _rows(logits, index, seed, parameters, estimator, num_samples, first_row)

    def of_term(term: Term) -> Tensor:
        minus_log = -term.p.clamp_min(torch.finfo(term.p.dtype).tiny).log()
        return term.weight * jacobian_product(term.p, term.q, minus_log)

    return _as_output(_sum_over_terms(rows, estimator, of_term), invalid, empty, logits)


def surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """Pull ``grad`` (the ``v`` of the papers) back to the logits: ``sum over terms of weight * J(p, q; v)``.

    Args:
        grad: ``(..., N)``, gradient at the sample.
        logits: ``(..., N)``.
        index: ``(...)`` int64, as :func:`sample` returned it.
        seed: ``(S,)`` int64, as :func:`sample` took it.
        parameters: as :func:`sample` took them.
        estimator: a key of ``TERMS``, or one that a prefix makes.
        num_samples: K.
        first_row: as :func:`sample` took it.

    Returns:
        ``(..., N)`` like ``logits``.
    """
    rows, invalid, empty = _rows(logits, index, seed, parameters, estimator, num_samples, first_row)
    v, scale = _scaled(grad, rows.l)

    def of_term(term: Term) -> Tensor:
        return term.weight * jacobian_product(term.p, term.q, term.of(v) if term.of else v)

    pulled = _sum_over_terms(rows, estimator, of_term)
    if without_binary(estimator).startswith(NONZERO):
        pulled = through_perturbation(rows.l, rows.D, pulled, _gap(rows, estimator))
    return _as_output(pulled / scale, invalid, empty, logits)


def surrogate_jvp(
    tangent: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Parameters,
    estimator: str,
    num_samples: int,
    first_row: int = 0,
) -> Tensor:
    """Push a tangent at the logits forward: the transpose of :func:`surrogate_vjp`, which is another function for the
    estimators that are ``ASYMMETRIC`` alone. Args and result as there."""
    rows, invalid, empty = _rows(logits, index, seed, parameters, estimator, num_samples, first_row)
    t, scale = _scaled(tangent, rows.l)
    if without_binary(estimator).startswith(NONZERO):
        t = into_perturbation(rows.l, rows.D, t, _gap(rows, estimator))

    def of_term(term: Term) -> Tensor:
        pushed = term.weight * (term.p * t - term.q * (term.p * t).sum(-1, keepdim=True))
        return term.of.transposed(pushed) if term.of else pushed

    return _as_output(_sum_over_terms(rows, estimator, of_term) / scale, invalid, empty, logits)


def _gap(rows: Rows, estimator: str) -> Weight:
    return pi_gap(rows.l, rows.D) if estimator.endswith("pi") else rows.coefficient


def _scaled(v: Tensor, l: Tensor) -> tuple[Tensor, float]:  # noqa: E741
    """``v`` as rows, 0 where masked, times a power of 2: sums over a row of any finite ones stay finite."""
    scale = 2.0**-34  # of float64: rows have less than 2**31 columns
    v, masked = v.reshape(-1, v.shape[-1]).to(l), l == -torch.inf
    if v.shape[-1] < l.shape[-1]:  # of binary variables: none where the outcome is certain
        v, masked = torch.cat([v, torch.zeros_like(v)], -1), masked.any(-1, keepdim=True)
    return v.masked_fill(masked, 0.0) * scale, scale
