"""Philox4x32-10 and the noise layout of every backend, on tiles. Mirrors ``discrete_ops/philox.py``:

key = seed, counter = (column // 4, draw, row low, row high), lane = column % 4.

Source: Salmon, Moraes, Dror, Shaw, SC 2011. ``row`` counts from the call's first row under each seed; seeds and rows
are ``(1, R, 1)`` int64.
"""

import triton.language as tl

from .jit import device_function
from .vector_math import log1p, log2

FORWARD_DRAW = tl.constexpr(2**32 - 1)  # draw index of the forward pass's uniform
STRATA_DRAW = tl.constexpr(2**32 - 2)  # and of a column's order of strata
SHUFFLE_DRAW = tl.constexpr(2**32 - 3)


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
def strata(seed, row, block, place, count):
    """The strata, of ``count``, that draw ``place`` of them takes in four columns: ``philox.stratum``."""
    zero = tl.zeros_like(row)
    r0, r1, r2, r3 = words(seed, block, zero + STRATA_DRAW, row)
    s0, s1, s2, s3 = words(seed, block, zero + SHUFFLE_DRAW, row)
    return (
        stratum(r0, s0, place, count),
        stratum(r1, s1, place, count),
        stratum(r2, s2, place, count),
        stratum(r3, s3, place, count),
    )


@device_function
def stratum(rotation, shuffle, place, count):
    """Of one column; unsigned numbers of 32 bits, so that x modulo K is the lesser of x and x - K."""
    K = count.to(tl.uint32)
    bits = 1
    for bit in tl.static_range(1, 31):
        bits += (((count - 1) >> bit) > 0).to(tl.int32)
    x = ((rotation.to(tl.uint64) * K.to(tl.uint64)) >> 32).to(tl.uint32) + place.to(tl.uint32)
    x = tl.minimum(x, x - K)
    random = shuffle
    for _ in range((bits + 1) // 2 + 2):
        random = random * 747796405 + 2891336453
        key = random >> (32 - bits).to(tl.uint32)
        key = tl.minimum(key, key - K)
        partner = key - x
        partner = tl.minimum(partner, partner + K)
        swap = tl.maximum(x, partner) * random + shuffle
        x = tl.where(swap >= 2147483648, partner, x)
    return x


@device_function
def exponential(word, T: tl.constexpr):
    """Standard exponential noise ``-log1p(-u)``, ``u = (word + 1/2) 2**-32`` clipped below 1: never 0, never inf."""
    return exponential_of(uniform_of(word, T), T, False)


@device_function
def stratified_exponential(word, stratum, width, T: tl.constexpr):
    """The same of ``u = (stratum + u) width``, ``width`` being 1 / K in float64."""
    return exponential_of((stratum.to(T) + uniform_of(word, T)) * width.to(T), T, True)


@device_function
def uniform_of(word, T: tl.constexpr):
    return (word.to(T) + 0.5) * 2.3283064365386963e-10


@device_function
def exponential_of(u, T: tl.constexpr, HAS_ALL_BITS: tl.constexpr):
    if tl.float64 == T and HAS_ALL_BITS:
        return -log1p(-tl.minimum(u, 0.9999999999999999))
    elif tl.float64 == T:
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
def exponentials(seed, draw, row, block, first, count, T: tl.constexpr, STRATIFIED: tl.constexpr):
    """Draw ``draw`` of the noise of all columns of the blocks ``(Q, 1, B)``: ``(Q, R, 4 B)``. ``STRATIFIED``: it is one
    of ``count`` from ``first`` on that share their strata."""
    if STRATIFIED:
        s0, s1, s2, s3 = strata(seed, row, block, draw - first, count)
        w0, w1, w2, w3 = words(seed, block, draw, row)
        width = 1.0 / count.to(tl.float64)
        return stratified_exponential(interleave(w0, w1, w2, w3), interleave(s0, s1, s2, s3), width, T)
    else:
        w0, w1, w2, w3 = words(seed, block, draw, row)
        return exponential(interleave(w0, w1, w2, w3), T)


@device_function
def exponential_at(seed, draw, row, column, first, count, T: tl.constexpr, STRATIFIED: tl.constexpr):
    """Draw ``draw`` of the noise of one column a row, ``(1, R, 1)``."""
    w0, w1, w2, w3 = words(seed, column // 4, draw, row)
    if STRATIFIED:
        s0, s1, s2, s3 = strata(seed, row, column // 4, draw - first, count)
        width = 1.0 / count.to(tl.float64)
        return stratified_exponential(at(column, w0, w1, w2, w3), at(column, s0, s1, s2, s3), width, T)
    else:
        return exponential(at(column, w0, w1, w2, w3), T)


@device_function
def at(column, x0, x1, x2, x3):
    """The column's lane."""
    lane = column % 4
    return tl.where(lane < 2, tl.where(lane == 0, x0, x1), tl.where(lane == 2, x2, x3))


@device_function
def interleave(x0, x1, x2, x3):
    """``(Q, R, B)`` tiles of the lanes as the ``(Q, R, 4 B)`` tile whose column j is in lane ``j % 4``."""
    x = tl.join(tl.join(x0, x2), tl.join(x1, x3))
    return tl.reshape(x, [x0.shape[0], x0.shape[1], 4 * x0.shape[2]])
