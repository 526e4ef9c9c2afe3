"""Gumbel-softmax samples given the category that wins (GST sec. 2.4), made in chunks and never held whole."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import philox

if TYPE_CHECKING:
    from .reference import Rows

CHUNK = 2**20  #: Elements of noise held at once: memory does not grow with the number of draws.


def the_draws(rows: "Rows", lp: Tensor, first: int) -> Iterator[Tensor]:
    """The K draws of an estimator, from ``first`` on, as :func:`conditional_gumbels`: stratified, if the call's are."""
    strata = philox.Strata(first, rows.num_samples) if rows.stratified else None
    return conditional_gumbels(rows, lp, first, rows.num_samples, strata)


def conditional_gumbels(
    rows: "Rows", lp: Tensor, first: int, count: int, strata: philox.Strata | None = None
) -> Iterator[Tensor]:
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
        log_e = philox.exponential(rows.seed, draw, n, columns, rows.noise, rows.first_row, strata).double().log()
        log_e_winner = (log_e * rows.D).sum(-1, keepdim=True)
        y = -_softplus(log_e - log_e_winner - lp)
        yield (y.masked_fill(winner, 0.0) / rows.tau).softmax(-1)


def _softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``; of plain operators, for ONNX has that of float64 in none of its runtimes."""
    return torch.maximum(x, torch.zeros_like(x)) + (-x.abs()).exp().log1p()
