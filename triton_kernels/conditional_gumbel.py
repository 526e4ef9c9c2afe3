"""Draws of ``softmax(Y(l, D, k) / tau)``, Y being ``l + G`` given that its argmax is D: made in registers, never
stored.

With normalised log-probabilities lp and exponential noise E the weights are ``(1 + (E_j / E_i) exp(-lp_j)) **
(-1/tau)``, and 1 at the winner i: every factor is in [0, 1] and nothing overflows, whatever the logits and the
temperature.
"""

from typing import NamedTuple

import triton.language as tl

from .jit import compile_time, device_function
from .philox import exponentials
from .rows import columns_of, row_sum
from .softmax_jvp import add, winner_of
from .vector_math import exp, inverse, log1p


class Conditional(NamedTuple):
    """Probabilities proportional to ``exp(y)`` off the winner, ready for draws."""

    inverse: tl.tensor  # exp(-max(y, -limit))
    excess: tl.tensor  # max(y, -limit) - y
    partition: tl.tensor  # (1, R, 1) sum of exp(y)
    winner: tl.tensor  # (1, R, 1) the winner's `inverse`


@compile_time
def conditional_type():
    from discrete_ops.triton_kernels.conditional_gumbel import Conditional

    return Conditional


@device_function
def bounded(y, is_tau_one):
    """y above a limit where its exponential times the largest partition and ratio of exponentials stays finite; at
    temperature 1, where what overflows has a weight of 0, times a draw's exponential noise alone."""
    if y.dtype == tl.float64:
        return tl.maximum(y, -600.0)
    else:
        return tl.maximum(y, tl.where(is_tau_one, -84.0, -48.0))


@device_function
def prepare(y, r):
    clamped = bounded(y, r.is_tau_one)
    weight = exp(clamped)
    return conditional_type()(inverse(weight), clamped - y, row_sum(weight), inverse(winner_of(weight, r)))


@device_function
def conditional_weights(x, excess, winner, inv_tau, is_tau_one):
    """Weights of one draw from ``x = (E_j / E_i) exp(-lp_j)``, less ``excess`` in its logarithm."""
    if is_tau_one:  # half the work at the commonest temperature
        w = tl.where(excess > 0, 0.0, inverse(1.0 + x))
    else:
        w = tl.exp2((log1p(x) + excess) * (inv_tau * -1.4426950408889634))  # Y_i - Y_j over tau
    return tl.where(winner, 1.0, w)


@device_function
def draw(conditional, factor, k, r, first=0, STRATIFIED: tl.constexpr = False):
    """Weights of draw k, ``STRATIFIED`` with the others from ``first`` on; the partition is ``factor`` times the
    prepared one."""
    block = columns_of(r.z.shape[0] * r.z.shape[2] // 4, r.z.shape[0])
    k = tl.full([1, 1, 1], k, tl.int32)
    e = exponentials(r.seed, k, r.row, block, first, r.num_samples, r.z.dtype, STRATIFIED)
    x = e * conditional.inverse
    ratio = conditional.partition * factor * (conditional.winner * inverse(winner_of(x, r)))
    return conditional_weights(x * ratio, conditional.excess, r.winner, r.inv_tau, r.is_tau_one)


@device_function
def add_draws(out, weight, conditional, factor, first, r, MODE: tl.constexpr, STRATIFIED: tl.constexpr):
    """``out + weight / (K tau) * sum of J`` over the draws ``first .. first + K - 1``."""
    each = r.inv_tau * (weight / tl.full([1, 1, 1], r.num_samples, tl.float64)).to(r.z.dtype)
    for k in range(first, first + r.num_samples):
        out = add(out, each, draw(conditional, factor, k, r, first, STRATIFIED), r, MODE)
    return out
