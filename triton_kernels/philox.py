"""Philox4x32-10 and the noise layout of every backend, on tiles. Mirrors ``discrete_ops/philox.py``:

key = seed, counter = (column // 4, draw, row low, row high), lane = column % 4.

Source: Salmon, Moraes, Dror, Shaw, SC 2011. ``row`` counts from the call's first row under each seed; seeds and rows
are ``(1, R, 1)`` int64.
"""

import triton.language as tl

from .jit import device_function
from .vector_math import log2

FORWARD_DRAW = tl.constexpr(2**32 - 1)  # draw index of the forward pass's uniform


@device_function
def words(seed, block, draw, row):
    """The four words of a block of four columns: uint32 tiles of the common shape of ``block``, ``draw`` and ``row``.

    As ``tl.philox``, which takes two multiplications for each product where a GPU has one instruction for both halves.
    """
    c0, c1, c2, c3 = block.to(tl.uint32), draw.to(tl.uint32), row.to(tl.uint32), (row >> 32).to(tl.uint32)
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        a = c0.to(tl.uint64) * 0xD2511F53
        b = c2.to(tl.uint64) * 0xCD9E8D57
        c0, c2 = (b >> 32).to(tl.uint32) ^ c1 ^ k0, (a >> 32).to(tl.uint32) ^ c3 ^ k1
        c1, c3 = b.to(tl.uint32), a.to(tl.uint32)
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@device_function
def uniform(seed, row):
    """The forward pass's uniform, ``(1, R, 1)`` float64 on the grid ``(n + 1/2) 2**-52``: never 0, never 1."""
    zero = tl.zeros_like(row)
    high, low, _, _ = words(seed, zero, zero + FORWARD_DRAW, row)
    n = (high.to(tl.int64) << 20) + (low >> 12).to(tl.int64)
    return (n.to(tl.float64) + 0.5) * 2.220446049250313e-16


@device_function
def exponential(word, T: tl.constexpr):
    """Standard exponential noise ``-log1p(-u)``, ``u = (word + 1/2) 2**-32`` clipped below 1: never 0, never inf."""
    u = (word.to(T) + 0.5) * 2.3283064365386963e-10
    if tl.float64 == T:
        return -tl.log(1.0 - u)  # the difference is exact
    else:
        # The definition of csrc/cuda/math.h: a polynomial below 1/2 keeps the relative precision of small noise;
        # above, 1 - u is exact.
        u = tl.minimum(u, 0.9999999403953552)
        q = 1.4145476818084717 * u - 1.639589786529541
        q = q * u + 1.2087141275405884
        q = q * u - 0.18095238506793976
        q = q * u + 0.2636909484863281
        q = q * u + 0.2436826080083847
        q = q * u + 0.33363211154937744
        q = q * u + 0.49999523162841797
        return tl.where(u < 0.5, u * u * q + u, -0.6931471824645996 * log2(1.0 - u))


@device_function
def exponentials(seed, draw, row, block, T: tl.constexpr):
    """Draw ``draw`` of the noise of all columns of the blocks ``(Q, 1, B)``: ``(Q, R, 4 B)``."""
    w0, w1, w2, w3 = words(seed, block, draw, row)
    return exponential(interleave(w0, w1, w2, w3), T)


@device_function
def exponential_at(seed, draw, row, column, T: tl.constexpr):
    """Draw ``draw`` of the noise of one column a row, ``(1, R, 1)``."""
    w0, w1, w2, w3 = words(seed, column // 4, draw, row)
    lane = column % 4
    word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    return exponential(word, T)


@device_function
def interleave(x0, x1, x2, x3):
    """``(Q, R, B)`` tiles of the lanes as the ``(Q, R, 4 B)`` tile whose column j is in lane ``j % 4``."""
    x = tl.join(tl.join(x0, x2), tl.join(x1, x3))
    return tl.reshape(x, [x0.shape[0], x0.shape[1], 4 * x0.shape[2]])
