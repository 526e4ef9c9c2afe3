"""Philox4x32-10 and the noise layout of every backend, on tiles. Mirrors ``discrete_ops/philox.py``:

key = seed, counter = (column // 4, draw, row low, row high), lane = column % 4.

Source: Salmon, Moraes, Dror, Shaw, SC 2011. ``row`` counts from 0 under its own seed; seeds and rows are ``(R, 1)``
int64.
"""

import triton.language as tl

from .jit import device_function
from .vector_math import log1p

FORWARD_DRAW = tl.constexpr(2**32 - 1)  # draw index of the forward pass's uniform


@device_function
def words(seed, block, draw, row):
    """The four words of a block of four columns: uint32 tiles of the common shape of ``block``, ``draw`` and
    ``row``."""
    return tl.philox(seed, block.to(tl.uint32), draw.to(tl.uint32), row.to(tl.uint32), (row >> 32).to(tl.uint32))


@device_function
def uniform(seed, row):
    """The forward pass's uniform, ``(R, 1)`` float64 on the grid ``(n + 1/2) 2**-52``: never 0, never 1."""
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
        return -log1p(-tl.minimum(u, 0.9999999403953552))


@device_function
def exponentials(seed, draw, row, block, T: tl.constexpr):
    """Draw ``draw`` of the noise of all columns of the blocks ``(1, B)``: ``(R, 4 B)``."""
    w0, w1, w2, w3 = words(seed, block, draw, row)
    return exponential(interleave(w0, w1, w2, w3), T)


@device_function
def exponential_at(seed, draw, row, column, T: tl.constexpr):
    """Draw ``draw`` of the noise of one column a row, ``(R, 1)``."""
    w0, w1, w2, w3 = words(seed, column // 4, draw, row)
    lane = column % 4
    word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    return exponential(word, T)


@device_function
def interleave(x0, x1, x2, x3):
    """``(R, C/4)`` tiles of the lanes as the ``(R, C)`` tile whose column j is in lane ``j % 4``."""
    x = tl.join(tl.join(x0, x2), tl.join(x1, x3))
    return tl.reshape(x, [x0.shape[0], 4 * x0.shape[1]])
