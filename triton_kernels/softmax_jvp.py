"""The tempered softmax and its Jacobian product ``J(p, q; v) = p (v - <q, v>)``, the one primitive of every estimator.

A softmax is given by its weights w, ``p = w / sum(w)``, as ``csrc/surrogates.h`` has it. What a term adds to the result
depends on MODE: "pull_back", of the gradient v, ``weight * J(p, q; v)``; "soft", the soft sample, ``tau * weight * p``;
"tau", the soft sample's derivative in tau, ``weight * J(p, p; -log p)``.
"""

from typing import NamedTuple

import triton.language as tl

from .jit import compile_time, device_function
from .rows import row_sum
from .vector_math import exp, inverse, log1p


class Mean(NamedTuple):
    """``1 / sum(w)``, and ``<p, v>`` as a sum of two: rounding it would cost ``v - <p, v>`` more than anything else
    does."""

    inverse: tl.tensor
    high: tl.tensor
    low: tl.tensor


@compile_time
def mean_type():
    from discrete_ops.triton_kernels.softmax_jvp import Mean

    return Mean


@device_function
def tempered_softmax(z, rate):
    """Weights of ``softmax(rate * z)``, ``z <= 0``."""
    return exp(z * rate)


@device_function
def minus_log(w):
    """Of weights in [0, 1]; bounded, since those of 0 do not count."""
    least = tl.maximum(w, 2.0**-1000) if w.dtype == tl.float64 else tl.maximum(w, 2.0**-124)
    return log1p(inverse(least) - 1.0)


@device_function
def mean_under(w, v):
    inv_total = inverse(row_sum(w))
    high = row_sum(w * v) * inv_total
    low = row_sum(w * (v - high)) * inv_total
    return mean_type()(inv_total, high, low)


@device_function
def deviation(v, mean):
    return (v - mean.high) - mean.low


@device_function
def jacobian_product(out, weight, w, mean, v):
    """``out + weight J(p; v)``."""
    return out + (weight * mean.inverse) * w * deviation(v, mean)


@device_function
def soft_sample(out, weight, w, inverse, tau):
    """``out + tau weight p``."""
    return out + (tau * weight * inverse) * w  # in this order no factor leaves the normal range


@device_function
def half_way(w, mean, v, v_winner, winner):
    """``2 J((p + D) / 2; v)``."""
    p_and_D = w * (0.5 * mean.inverse) + tl.where(winner, 0.5, 0.0)
    return p_and_D * (deviation(v, mean) + (v - v_winner))


@device_function
def rk2(w, mean, v, v_winner, winner, beta):
    """``2 J((pi + D) / 2, beta pi + (1 - beta) D; v) - beta J(pi; v)``, BR Eq. 27."""
    pi = w * mean.inverse
    from_pi = deviation(v, mean) * beta
    from_D = (v - v_winner) * (1.0 - beta)
    return (pi + tl.where(winner, 1.0, 0.0)) * (from_pi + from_D) - pi * from_pi


@device_function
def mixed(w, mean, v, v_winner, winner, a):
    """``J(pi; v) + a / 2 ((D - pi) <D - pi, v> - J(pi; v))``: what a weighs is one product, in whose order 0 meets no
    inf."""
    pi = w * mean.inverse
    of_row = deviation(v, mean)
    return pi * of_row + ((tl.where(winner, 0.5, 0.0) - pi) * (0.5 * a)) * (of_row + deviation(v_winner, mean))


# --- terms of whole rows --------------------------------------------------------------------------------------------


@device_function
def add(out, weight, w, r, MODE: tl.constexpr):
    """``out`` and what the term adds."""
    if MODE == "soft":
        return soft_sample(out, weight, w, inverse(row_sum(w)), r.tau)
    elif MODE == "tau":
        v = minus_log(w)
        return jacobian_product(out, weight, w, mean_under(w, v), v)
    else:
        tl.static_assert(MODE == "pull_back")
        return jacobian_product(out, weight, w, mean_under(w, r.v), r.v)


@device_function
def winner_of(x, r):
    """Each row's value at the sampled category, ``(1, R, 1)``."""
    return row_sum(tl.where(r.winner, x, 0.0))


@device_function
def add_half_way(out, rate, r):
    """``out + 2 J((softmax(rate z) + D) / 2; v)``."""
    w = tempered_softmax(r.z, rate)
    return out + half_way(w, mean_under(w, r.v), r.v, winner_of(r.v, r), r.winner)
