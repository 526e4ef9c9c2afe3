"""The minimum-variance estimator on a tile of whole rows. Mirrors ``csrc/minimum_variance.h`` and ``csrc/cauchy.h``;
``discrete_ops/minimum_variance.py`` derives it."""

import triton.language as tl

from .jit import device_function
from .rows import row_max, row_sum
from .softmax_jvp import deviation, mean_type, tempered_softmax, winner_of
from .vector_math import exp, inverse, log1p

MOST_TEMPERATURE = tl.constexpr(2.0**30)  # stands for an infinite one
#: Above it a float32 row has not the precision: it is computed in float64.
MOST_FLOAT_TEMPERATURE = 16.0


@device_function
def terms_of(reach):
    """How many terms leave e**-16.4 (float32) or e**-33 of an element of the matrix, for the hottest row."""
    digits: tl.constexpr = 33.0 if reach.dtype == tl.float64 else 16.4
    return tl.ceil(tl.max(tl.where(reach < 100.0, reach, 1.0)) * (digits / 9.869604401089358)).to(tl.int32)


@device_function
def shift_of(k, count, reach, t):
    """Zolotarev's shifts but for their ends; the two halves are each other's mirror."""
    place = reach * ((2 * k + 1).to(reach.dtype) / (2 * count).to(reach.dtype))
    low = 2.0 * place > reach
    e = exp(-tl.where(low, reach - place, place))
    cosh = 0.5 * (e + inverse(e))
    return tl.where(low, 0.5 * cosh, (0.5 + t) * inverse(cosh))


@device_function
def cauchy_product(x, a, t, reach, count):
    """``K x``, ``K_ij = 1 / (1 + t (p_i + p_j))``, ``a = 1/2 + t p``: see ``csrc/cauchy.h``."""
    u = tl.full(x.shape, 1.0, x.dtype)
    total = tl.zeros_like(x)
    for k in range(0, count):
        shift = shift_of(tl.full([1, 1, 1], k, tl.int32), count, reach, t)
        u *= inverse(a + shift)
        total += u * (2.0 * shift * row_sum(u * x))
        u *= a - shift
    return total


@device_function
def solve_cauchy(w, p, t):
    """``M^-1 w / size``, ``M = diag(s) - t diag(p) K diag(p)``, ``s = (1 + t p) K p``, by conjugate gradients
    preconditioned by s; and the size, of which that may be 1 + t times as large."""
    least: tl.constexpr = 2.0**-92 if w.dtype == tl.float64 else 2.0**-46
    most_steps: tl.constexpr = 20 if w.dtype == tl.float64 else 8
    a = t * p + 0.5
    reach = log1p(8.0 * t + 3.0)
    count = terms_of(reach)
    s = (1.0 + t * p) * cauchy_product(p, a, t, reach, count)
    inverse_s = inverse(s)
    tiny: tl.constexpr = 2.0**-1000 if w.dtype == tl.float64 else 2.0**-124
    size = tl.minimum(tl.maximum(row_max(tl.abs(w)), tiny), 1.0 / tiny)  # squares of any gradient are to be numbers
    found = tl.zeros_like(w)
    residual = w * inverse(size)
    direction = residual * inverse_s
    rho = row_sum(residual * direction)
    enough = rho * least
    step = 0
    going = tl.max((rho > enough).to(tl.int32))
    while (step < most_steps) & (going > 0):
        applied = s * direction - t * p * cauchy_product(p * direction, a, t, reach, count)
        on = rho > enough  # a row that has arrived stands
        alpha = tl.where(on, rho / tl.where(on, row_sum(direction * applied), 1.0), 0.0)
        found += alpha * direction
        residual -= alpha * applied
        following = row_sum(residual * residual * inverse_s)
        direction = residual * inverse_s + tl.where(on, following / tl.where(on, rho, 1.0), 0.0) * direction
        rho = tl.where(on, following, rho)
        going = tl.max((rho > enough).to(tl.int32))
        step += 1
    return found, size


@device_function
def mve(out, r):
    """``out + J(pi; y)``. All counts from the sampled v on, which leaves w one sum at the winner."""
    t = r.coefficient.to(r.z.dtype)
    t = tl.where(t >= 0.0, tl.minimum(t, MOST_TEMPERATURE), float("nan"))
    p = tempered_softmax(r.z, 1.0)
    p *= inverse(row_sum(p))
    tp = t * p
    share = (r.v - winner_of(r.v, r)) * inverse((1.0 + t * winner_of(p, r)) + tp)
    w = tl.where(r.winner, -row_sum(share * tp), share + share * tp)
    found, size = solve_cauchy(w, p, t)
    y = (found + found * tp) * inverse(1.0 + (tp + tp))
    high = row_sum(p * y)
    low = row_sum(p * (y - high))
    return out + (p * deviation(y, mean_type()(high, high, low))) * size
