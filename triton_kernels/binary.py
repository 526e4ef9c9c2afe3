"""Binary variables: a row of two categories, of which the second, with logit 0, is in no memory."""

import triton.language as tl

from .jit import device_function
from .rows import columns_of, row_sum
from .softmax_jvp import winner_of
from .vector_math import exp, inverse, log1p


@device_function
def read_variables(x, row, rows, stride, C: tl.constexpr):
    """Each row's variable in column 0, in the type of row maths, and 0 beside it."""
    T: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(x + row * stride + columns_of(C, 1), (row < rows) & (columns_of(C, 1) == 0), other=0.0).to(T)


@device_function
def write_variables(out, values, row, rows, C: tl.constexpr):
    """Column 0 of the rows, into a contiguous tensor."""
    column = columns_of(C, 1)
    tl.store(out + row + column, values.to(out.dtype.element_ty), (row < rows) & (column == 0))


@device_function
def with_other_category(x, C: tl.constexpr):
    """The logits of both categories, at most 0, -inf where there is none; which rows are NaN; which have nothing.
    Of +inf the other category is masked."""
    column = columns_of(C, 1)
    invalid = row_sum(tl.where(x != x, 1, 0)) > 0
    l = row_sum(tl.where(column == 0, tl.where(invalid, 0.0, x), 0.0))  # noqa: E741
    z = tl.where(column == 0, tl.minimum(l, 0.0), tl.where(column == 1, tl.minimum(-l, 0.0), -float("inf")))
    return z, invalid, l != l


@device_function
def without_certain(v, x):
    """No gradient where the outcome is certain."""
    return tl.where((x == float("inf")) | (x == -float("inf")), 0.0, v)


@device_function
def gumbel_rao_of_all_draws(out, r, MODE: tl.constexpr):
    """Gumbel-Rao's limit in K: the nodes of ``discrete_ops/quadrature.py`` where the draws were, fewer of them in
    float32. Mirrors ``csrc/quadrature.h``."""
    is_double: tl.constexpr = r.z.dtype == tl.float64
    nodes: tl.constexpr = 105 if is_double else 41
    end: tl.constexpr = 10.4 if is_double else 8.0
    step: tl.constexpr = 0.2 if is_double else 0.4
    limit: tl.constexpr = 600.0 if is_double else 48.0
    least: tl.constexpr = 2.0**-60 if is_double else 2.0**-40
    is_other = (columns_of(r.z.shape[2], 1) < 2) & (r.winner == 0)
    lead = winner_of(r.z, r) - row_sum(tl.where(is_other, r.z, 0.0))
    odds = exp(tl.minimum(lead, -lead))
    A = tl.where(lead > 0, odds, 1.0) * inverse(odds + 1.0)
    tau = tl.where(r.tau < least, least, r.tau)
    inv_tau = 1.0 / tau
    is_low = tau <= 1.0
    to_ratio = tl.where(is_low, A * tau, 1.0)
    share = tl.where(is_low, A, inv_tau)
    to_odds = tl.where(is_low, tau, exp(tl.minimum(lead, limit)) + 1.0)  # R / A, bounded
    beyond = tl.where(is_low, 0.0, tl.minimum(tl.maximum(lead - limit, 0.0), 1e30))
    rate = inv_tau * -1.4426950408889634
    total = tl.zeros_like(tau)
    for node in range(nodes):
        s = (tl.zeros_like(tau) + node) * step - end
        e = exp(1.0 + s + 0.02 * s * s * s)
        lag = log1p(e * to_odds) + beyond
        q = tl.exp2(lag * rate)
        both = inverse((e * to_ratio + 1.0) * (q + 1.0))
        weight = e * (step + (0.06 * step) * s * s) * share * (both * both) * q  # dR's times p (1 - p) / tau
        if MODE == "soft":
            weight *= q + 1.0
        elif MODE == "tau":
            weight *= lag * inv_tau
        total += weight
    if MODE == "soft":
        return out + tl.where(r.winner, 1.0 - total * tau, total * tau)
    elif MODE == "tau":
        return out + tl.where(r.winner, -total, total)
    else:
        return out + total * r.v  # the other category's v is 0
