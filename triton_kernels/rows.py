"""Rows of a tensor as a tile in registers, with the row rules of the reference.

A tile is ``(Q, R, C / Q)``: R rows of C columns, a power of two, each in Q strips. A thread has the same four columns
of every strip, so what a row costs, its reductions above all, is shared by 4 Q elements. What belongs to a row is
``(1, R, 1)``. Row maths runs in float64 for float64 logits, else in float32.
"""

from typing import NamedTuple

import triton.language as tl

from .jit import compile_time, device_function
from .philox import interleave

LEAST_TAU = tl.constexpr(2.0**-126)
MOST_TAU = tl.constexpr(2.0**126)
# The columns of the parameters.
TAU = tl.constexpr(0)
COEFFICIENT = tl.constexpr(1)
SAMPLE_TAU = tl.constexpr(2)


class Rows(NamedTuple):
    """What a pull-back may depend on. Mirrors ``reference.Rows``; ``(1, R, 1)`` where not said otherwise."""

    z: tl.tensor  # tile: logits minus their maximum, -inf where masked; anything in rows without a sample
    v: tl.tensor  # tile: incoming gradient, scaled, 0 where masked
    winner: tl.tensor  # tile: whether this is the sampled category
    tau: tl.tensor
    inv_tau: tl.tensor
    is_tau_one: tl.tensor  # scalar: whether all temperatures of the tile are 1
    coefficient: tl.tensor  # float64: the gap of GST, eta of ReinMax-CV, beta of RK2
    num_samples: tl.tensor  # scalar: K
    seed: tl.tensor
    row: tl.tensor  # its number under its seed


@compile_time
def rows_type():
    from discrete_ops.triton_kernels.rows import Rows

    return Rows


@device_function
def row_sum(x):
    return tl.sum(tl.sum(x, 0, keep_dims=True), 2, keep_dims=True)


@device_function
def row_max(x):
    return tl.max(tl.max(x, 0, keep_dims=True), 2, keep_dims=True)


@device_function
def row_min(x):
    return tl.min(tl.min(x, 0, keep_dims=True), 2, keep_dims=True)


@device_function
def rows_of_program(R: tl.constexpr):
    return tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[None, :, None].to(tl.int64)


@device_function
def columns_of(C: tl.constexpr, Q: tl.constexpr):
    return tl.arange(0, Q)[:, None, None] * (C // Q) + tl.arange(0, C // Q)[None, None, :]


@device_function
def group_of(row, per_group, rows):
    """Number of the group of rows that each row is in, and the row's place in it."""
    group = tl.zeros_like(row)
    place = row
    if per_group < rows:  # 64-bit divisions are slow
        group = row // per_group
        place = row - group * per_group
    return group, place


@device_function
def read(
    x,
    row,
    rows,
    row_stride,
    column_stride,
    first,
    columns,
    other,
    C: tl.constexpr,
    Q: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Columns ``first .. first + C - 1`` of the rows, in the type of row maths; ``other`` where there is none.

    The noise of a row comes in lanes of four columns, so the compiler keeps tiles best with four neighbouring columns
    in a thread. One wide load gives it that where rows are aligned to 16 bytes (``VECTOR``); elsewhere four loads do,
    a lane each.
    """
    T: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    if VECTOR:
        column = first + columns_of(C, Q)
        at = tl.multiple_of(x + (row * row_stride + column), [1, 1, 16])
        valid = tl.max_constancy((row < rows) & (column < columns), [1, 1, 4])
        return tl.load(at, valid, other=other).to(T)
    else:
        column = first + 4 * columns_of(C // 4, Q)
        left = tl.where(row < rows, columns - column, 0)
        at = x + (row * row_stride + column.to(tl.int64) * column_stride)
        x0 = tl.load(at, left > 0, other=other)
        step = tl.zeros_like(left).to(tl.int64) + column_stride
        x1 = tl.load(at + step, left > 1, other=other)
        x2 = tl.load(at + 2 * step, left > 2, other=other)
        x3 = tl.load(at + 3 * step, left > 3, other=other)
        return interleave(x0, x1, x2, x3).to(T)


@device_function
def write(out, values, row, rows, first, columns, C: tl.constexpr, Q: tl.constexpr, VECTOR: tl.constexpr):
    """The same columns of a contiguous tensor."""
    column = first + columns_of(C, Q)
    at = out + (row * columns + column)
    valid = (row < rows) & (column < columns)
    if VECTOR:
        at = tl.multiple_of(at, [1, 1, 16])
        valid = tl.max_constancy(valid, [1, 1, 4])
    tl.store(at, values.to(out.dtype.element_ty), valid)


@device_function
def finite_or_inf(x):
    """x, with NaN taken for +inf."""
    return tl.where(x < float("inf"), x, float("inf"))


@device_function
def below(x, top):
    """``x - top``; a difference beyond the finite range is no mask."""
    lowest: tl.constexpr = -1.7976931348623157e308 if x.dtype == tl.float64 else -3.4028234663852886e38
    return tl.where(x == -float("inf"), -float("inf"), tl.maximum(x - top, lowest))


@device_function
def normalise(x):
    """Whole rows of logits, minus their maximum; which rows are NaN; which are masked whole."""
    top = row_max(finite_or_inf(x))
    invalid = top == float("inf")
    empty = top == -float("inf")
    return below(x, top), invalid, empty


@device_function
def maximum_of_tiles(
    x, row, row_stride, column_stride, begin, end, columns, winner, C: tl.constexpr, VECTOR: tl.constexpr
):
    """Maximum of the columns ``begin .. end - 1`` of one row, NaN taken for +inf; and the maximum without the
    winner's."""
    T: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    top = tl.full([1, 1, C], -float("inf"), T)
    others = tl.full([1, 1, C], -float("inf"), T)
    for first in range(begin, end, C):
        tile = read(x, row, row + 1, row_stride, column_stride, first, columns, -float("inf"), C, 1, VECTOR)
        top = tl.maximum(top, finite_or_inf(tile))
        others = tl.maximum(others, tl.where(first + columns_of(C, 1) == winner, -float("inf"), finite_or_inf(tile)))
    return row_max(top), row_max(others)


@device_function
def without_masked(v, x):
    return tl.where(x == -float("inf"), 0.0, v)


@device_function
def with_row_rules(values, invalid, empty):
    return tl.where(invalid | empty, tl.where(invalid, float("nan"), 0.0), values)  # one choice an element


@device_function
def from_bits(bits):
    """The double that ``launch.bits`` took apart, ``(1, 1, 1)``."""
    return ((tl.zeros([1, 1, 1], tl.int64) + bits) << 1).to(tl.float64, bitcast=True)


@device_function
def parameter(parameters, which, bits, row, rows, rows_per_group):
    """Column ``which`` of the parameters of each row's group, or one number for all: float64, shaped as ``row``."""
    bits = (tl.zeros_like(row) + bits) << 1
    if rows_per_group > 0:
        group, _ = group_of(tl.minimum(row, rows - 1), rows_per_group, rows)
        bits = tl.load(parameters + (3 * group + which))
    return bits.to(tl.float64, bitcast=True)


@device_function
def temperature(parameters, which, bits, row, rows, rows_per_group):
    """The same of a temperature. Out of range it is NaN."""
    tau = parameter(parameters, which, bits, row, rows, rows_per_group)
    return tl.where((tau >= LEAST_TAU) & (tau <= MOST_TAU), tau, float("nan"))
