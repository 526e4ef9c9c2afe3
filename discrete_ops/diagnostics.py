"""How good is an estimator here? The exact gradient by enumeration, and an estimator's bias and variance against it.

With ``pi = softmax(l)``, ``e_i`` the one-hots, ``v_j = grad f(e_j)`` and ``J(p, q; v) = p * (v - <q, v>)``:

    exact_gradient   sum_j f(e_j) d pi_j/dl                                                        BR Eq. 2
    first_order      sum_i sum_j pi_j <v_j, e_i - e_j> d pi_i/dl          mean of ST, tau = 1        BR Eq. 9
    second_order     sum_i sum_j pi_j <v_j + v_i, e_i - e_j> / 2 d pi_i/dl  mean of ReinMax, tau = 1  BR Eq. 11
    rk2              sum_i sum_j pi_j <(1 - beta) v_j + beta v_i, e_i - e_j> d pi_i/dl
                                                   mean of reinmax_rk2(beta, centred=True)         BR Eq. 26
    rk2_uncentred    pi_k sum_j pi_j <(1 - beta) v_j + beta v_k, e_k - e_j>, k = 1..N
                                                   mean of reinmax_rk2(beta)                       BR Eq. 35

and as means over D, which is how they are computed here:

    exact_gradient   E[f(D) (D - pi)]
    first_order      E[J(pi, pi; v)]                                            with v = grad f(D)
    rk2              E[(1 - beta) J(pi, pi; v) + beta <v, D - pi> (D - pi)]
    rk2_uncentred    E[(1 - beta) J(pi, D; v) + beta J(D, pi; v)]

``rk2`` is ``first_order`` at beta = 0 and ``second_order`` at 1/2, Heun's method, and sums to 0 over a row, as a
gradient at logits does. BR's Theorem 1 says that Eq. 26 is the mean of BR Eq. 27, ``reinmax_rk2(beta)``; as printed it
holds at beta = 1/2 alone: from Eq. 34 to 35 its proof drops
``-pi_k sum_i sum_j pi_i pi_j <(1 - beta) v_j + beta v_i, e_i - e_j>``, which is ``rk2`` less ``rk2_uncentred`` and 0
there. With several latents each row's formula is averaged over the other rows. BR: Wang and Bui, "Beyond ReinMax",
arXiv 2603.08257, 2026.

Shared by all of them:

Args:
    f: maps one-hot codes ``(B, *logits.shape)`` to losses ``(B,)``, each of its own code only.
    logits: ``(L, N)``, or ``(N,)`` for one latent; float64, float32, float16 or bfloat16. All codes are enumerated,
        N^L of them, less those with a masked (``-inf``) category; a row masked whole is a zero row.
    chunk_size: codes f sees at once, which bounds the memory.

Returns:
    Like ``logits``. Sums are taken in float64.

Raises:
    TypeError, ValueError: naming the argument, what came and what is allowed; also for more than 2**26 codes.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks, philox, reference
from .call import Generator, Seed
from .reference import jacobian_product as J

Loss = Callable[[Tensor], Tensor]

MAX_CODES = 2**26  #: The most codes that are enumerated.


# ---------------------------------------------------------------------------------------------------
# Expectations by enumeration


def expectation(f: Loss, logits: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """``E[f(D)]``, 0-dim. Arguments and errors: see :mod:`discrete_ops.diagnostics`."""
    with torch.no_grad():
        return _mean(lambda D: _loss(f, D), logits, chunk_size).to(logits.dtype)


def exact_gradient(f: Loss, logits: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """Gradient of ``E[f(D)]`` at the logits, ``E[f(D) (D - pi)]``. BR Eq. 2.

    Arguments, result and errors: see :mod:`discrete_ops.diagnostics`.
    """
    return _exact_gradient(f, logits, chunk_size).to(logits.dtype)


def _exact_gradient(f: Loss, logits: Tensor, chunk_size: int) -> Tensor:
    pi = _probabilities(logits)
    with torch.no_grad():
        return _mean(lambda D: _per_code(_loss(f, D), D) * (D - pi), logits, chunk_size)


def first_order(f: Loss, logits: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """``sum_i sum_j pi_j <grad f(e_j), e_i - e_j> d pi_i/dl``: the mean of straight-through at tau = 1. BR Eq. 9.

    Arguments, result and errors: see :mod:`discrete_ops.diagnostics`.
    """
    pi = _probabilities(logits)
    return _mean(lambda D: J(pi, pi, _gradient(f, D, logits)), logits, chunk_size).to(logits.dtype)


def second_order(f: Loss, logits: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """``sum_i sum_j pi_j <grad f(e_j) + grad f(e_i), e_i - e_j> / 2 d pi_i/dl``: the mean of ReinMax. BR Eq. 11.

    Exact where f is quadratic in each row. Arguments, result and errors: see :mod:`discrete_ops.diagnostics`.
    """
    return rk2(f, logits, 0.5, chunk_size=chunk_size)


def rk2(f: Loss, logits: Tensor, beta: float, *, chunk_size: int = 4096) -> Tensor:
    """``sum_i sum_j pi_j <(1 - beta) grad f(e_j) + beta grad f(e_i), e_i - e_j> d pi_i/dl``. BR Eq. 26.

    The mean of ``reinmax_rk2(beta, centred=True)``; of BR Eq. 27, as Theorem 1 has it, at beta = 1/2 alone.

    Args:
        beta: any finite number.

    Other arguments, result and errors: see :mod:`discrete_ops.diagnostics`.
    """
    beta, pi = checks.number("beta", beta), _probabilities(logits)

    def term(D: Tensor) -> Tensor:
        v, centred = _gradient(f, D, logits), D.double() - pi
        return (1 - beta) * J(pi, pi, v) + beta * (v * centred).sum(-1, keepdim=True) * centred

    return _mean(term, logits, chunk_size).to(logits.dtype)


def rk2_uncentred(f: Loss, logits: Tensor, beta: float, *, chunk_size: int = 4096) -> Tensor:
    """``pi_k sum_j pi_j <(1 - beta) grad f(e_j) + beta grad f(e_k), e_k - e_j>``, k = 1..N. BR Eq. 35-37.

    The mean of ``reinmax_rk2(beta)``, BR Eq. 27. It is :func:`rk2`, as Theorem 1 has it, at beta = 1/2 alone; at any
    other beta it does not sum to 0 over a row.

    Args:
        beta: any finite number.

    Other arguments, result and errors: see :mod:`discrete_ops.diagnostics`.
    """
    beta, pi = checks.number("beta", beta), _probabilities(logits)

    def term(D: Tensor) -> Tensor:
        v = _gradient(f, D, logits)
        return (1 - beta) * J(pi, D.double(), v) + beta * J(D.double(), pi, v)

    return _mean(term, logits, chunk_size).to(logits.dtype)


# ---------------------------------------------------------------------------------------------------
# Measuring an estimator


class Measurement(NamedTuple):
    """An estimator's gradient ``g`` against the exact one. Relative figures are NaN or inf where that is zero."""

    cosine: float  #: of the mean gradient to the exact one
    relative_bias: float  #: ``||mean - exact|| / ||exact||``; holds Monte-Carlo noise of about relative_std / sqrt(n)
    std: float  #: ``sqrt(E ||g - E g||^2)``, the root of the total variance
    relative_std: float  #: ``std / ||exact||``
    mean: Tensor  #: mean gradient, float64, shaped like the logits
    exact: Tensor  #: exact gradient, float64, shaped like the logits


def measure(
    estimator: Callable[..., Any],
    f: Loss,
    logits: Tensor,
    num_samples: int = 1000,
    *,
    exact: Tensor | None = None,
    generator: Generator = None,
    seed: Seed = None,
    batch_size: int = 1000,
) -> Measurement:
    """Bias and spread of the gradient of ``f(estimator(logits))``, one sample a draw, over ``num_samples`` draws.

    Args:
        estimator: called as ``estimator(logits, seed=...)`` for one-hot samples that carry a gradient, say
            ``estimators.ReinMax(tau=1.3)``. It gets n copies of the logits, ``(n, *logits.shape)``, and ``(n,)`` int64
            seeds, one a copy, so the result does not depend on ``batch_size``.
        num_samples: number of draws, at least 2.
        exact: the gradient to compare with; ``exact_gradient(f, logits)`` if None. Saves the enumeration when many
            estimators are measured.
        generator, seed: as in :func:`discrete_ops.straight_through`, one seed. Equal seed, equal result.
        batch_size: draws (and codes of the enumeration) at once.

    Other arguments and errors: see :mod:`discrete_ops.diagnostics`.
    """
    if not callable(estimator):
        raise TypeError(f"estimator: got {type(estimator).__name__}, allowed: a callable from logits to samples")
    return measure_loss(
        lambda copies, seed: _loss(f, estimator(copies, seed=seed)),
        f,
        logits,
        num_samples,
        exact=exact,
        generator=generator,
        seed=seed,
        batch_size=batch_size,
    )


def measure_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    f: Loss,
    logits: Tensor,
    num_samples: int = 1000,
    *,
    exact: Tensor | None = None,
    generator: Generator = None,
    seed: Seed = None,
    batch_size: int = 1000,
) -> Measurement:
    """As :func:`measure`, for what gives losses and not samples: the score functions.

    Args:
        loss: ``loss(logits, seed)`` maps ``(n, *logits.shape)`` and ``(n,)`` seeds to ``(n,)`` losses, say
            ``lambda logits, seed: score_function.rloo(f, logits, seed=seed)``.

    Other arguments and errors: see :func:`measure`.
    """
    _check(logits)
    num_samples, batch_size = checks.count("num_samples", num_samples, 2), checks.count("batch_size", batch_size)
    seeds = _seeds(checks.draw_seed(generator, seed, 1, logits.device), num_samples)
    if exact is None:
        exact = _exact_gradient(f, logits, batch_size)
    elif exact.shape != logits.shape:
        raise ValueError(f"exact: got shape {tuple(exact.shape)}, allowed: that of logits, {tuple(logits.shape)}")
    exact = exact.detach().double()

    count, mean, square = 0, torch.zeros_like(exact), torch.zeros_like(exact[..., 0].sum())
    for chunk in seeds.split(batch_size):
        g = _draw(loss, logits, chunk)
        delta, n = g.mean(0) - mean, len(g)
        # Chan, Golub, LeVeque 1979: the sum of squares about the mean of a union, from those of its parts
        square = square + (g - g.mean(0)).square().sum() + delta.square().sum() * count * n / (count + n)
        mean = mean + delta * n / (count + n)
        count += n
    norm, std = exact.norm(), (square / (count - 1)).sqrt()
    return Measurement(
        cosine=float((mean * exact).sum() / (mean.norm() * norm)),
        relative_bias=float((mean - exact).norm() / norm),
        std=float(std),
        relative_std=float(std / norm),
        mean=mean,
        exact=exact,
    )


def _seeds(seed: Tensor, count: int) -> Tensor:
    """``count`` int64 seeds in ``[0, 2**63)`` from one: Philox under its key."""
    high, low = philox.words(seed, torch.zeros_like(seed), count, 2)[0].unbind(-1)
    return ((high >> 1) << 32) + low


def _draw(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, seeds: Tensor) -> Tensor:
    """One gradient a seed, ``(n, *logits.shape)`` float64."""
    with torch.enable_grad():
        copies = logits.detach().expand(len(seeds), *logits.shape).contiguous().requires_grad_()
        losses = loss(copies, seeds)
        if losses.shape != seeds.shape:
            raise ValueError(f"loss: got shape {tuple(losses.shape)}, allowed: {tuple(seeds.shape)}")
        if not losses.requires_grad:
            raise ValueError(
                "estimator: got samples with no gradient to the logits, allowed: what backpropagates to them"
            )
        (g,) = torch.autograd.grad(losses.sum(), copies, materialize_grads=True)
    return g.double()


# ---------------------------------------------------------------------------------------------------
# Enumeration


def _mean(term: Callable[[Tensor], Tensor], logits: Tensor, chunk_size: int) -> Tensor:
    """``sum over codes D of p(D) term(D)`` in float64; ``term`` maps ``(B, *logits.shape)`` to ``(B, ...)``."""
    total: Tensor | None = None
    for D, p in _codes(logits, checks.count("chunk_size", chunk_size)):
        part = torch.tensordot(p, term(D).double(), 1)
        total = part if total is None else total + part
    assert total is not None  # there is at least one code
    return total


def _codes(logits: Tensor, chunk_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All codes of positive probability, in chunks: one-hot ``(B, *logits.shape)``, p ``(B,)`` float64."""
    tables = [_choices(pi) for pi in _probabilities(logits).reshape(-1, logits.shape[-1])]
    sizes = [len(p) for _, p in tables]
    count = math.prod(sizes)
    if count > MAX_CODES:
        got = f"shape {tuple(logits.shape)}, about 10**{math.log10(count):.1f} codes"
        raise ValueError(f"logits: got {got}, allowed: at most 2**{math.log2(MAX_CODES):.0f} codes")
    for start in range(0, count, chunk_size):
        code = torch.arange(start, min(start + chunk_size, count), device=logits.device)
        digits = torch.unravel_index(code, sizes)
        D = torch.stack([one_hots[digit] for (one_hots, _), digit in zip(tables, digits, strict=True)], 1)
        p = torch.stack([p[digit] for (_, p), digit in zip(tables, digits, strict=True)]).prod(0)
        yield D.reshape(-1, *logits.shape).to(logits.dtype), p


def _choices(pi: Tensor) -> tuple[Tensor, Tensor]:
    """What one row can be, ``(n, N)``, and with what probability, ``(n,)``."""
    possible = pi.nonzero().squeeze(-1)
    if len(possible) == 0:  # masked whole: always the zero row
        return torch.zeros_like(pi)[None], torch.ones_like(pi[:1])
    return torch.eye(len(pi), dtype=pi.dtype, device=pi.device)[possible], pi[possible]


def _probabilities(logits: Tensor) -> Tensor:
    """``softmax(logits)`` in float64, zero in rows masked whole."""
    _check(logits)
    l, _, empty = reference._as_rows(logits.detach())  # noqa: E741
    return reference.tempered_softmax(l).masked_fill(empty, 0.0).view(logits.shape)


def _check(logits: Any) -> None:
    checks.logits(logits, -1)
    if logits.ndim > 2 or logits.numel() == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, allowed: (L, N) or (N,), not empty")
    if logits.isnan().any() or logits.isposinf().any():
        raise ValueError("logits: got NaN or +inf, allowed: finite numbers and -inf")


def _loss(f: Loss, D: Tensor) -> Tensor:
    loss = f(D)
    if not isinstance(loss, Tensor) or loss.shape != D.shape[:1]:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"f: got {got} for codes {tuple(D.shape)}, allowed: a tensor of shape {tuple(D.shape[:1])}")
    return loss


def _per_code(loss: Tensor, D: Tensor) -> Tensor:
    """``(B,)`` losses in float64, shaped to multiply ``(B, *logits.shape)``."""
    return loss.double().reshape(-1, *(1,) * (D.ndim - 1))


def _gradient(f: Loss, D: Tensor, logits: Tensor) -> Tensor:
    """``grad f(D)`` of each code in float64; 0 at masked categories, which are no direction to go."""
    with torch.enable_grad():
        leaf = D.detach().requires_grad_()
        loss = _loss(f, leaf)
        if not loss.requires_grad:
            raise ValueError("f: got a loss with no gradient at its input, allowed here: a differentiable f")
        (v,) = torch.autograd.grad(loss.sum(), leaf, materialize_grads=True)
    return v.double().masked_fill(logits.detach() == -torch.inf, 0.0)
