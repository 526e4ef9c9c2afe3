"""The forward pass: ``D ~ softmax(logits / sample_tau)`` by the inverse CDF, accumulated in float64 so that no category
hides."""

import triton
import triton.language as tl

from .binary import read_variables, with_other_category, write_variables
from .jit import device_function
from .philox import uniform
from .rows import (
    SAMPLE_TAU,
    below,
    columns_of,
    group_of,
    maximum_of_tiles,
    normalise,
    read,
    row_max,
    row_min,
    row_sum,
    rows_of_program,
    temperature,
    with_row_rules,
    write,
)
from .vector_math import exp

NONE = tl.constexpr(2**31 - 1)  # a column that no row has


@device_function
def passing(w, target, before, column):
    """The first column of a tile where ``before`` plus the running sum of the float64 weights w passes the target, or
    ``NONE``; and the last column that can be drawn, or -1. Only categories of positive weight can."""
    possible = w > 0.0
    strip = tl.sum(w, 2, keep_dims=True)
    before += tl.cumsum(strip, 0) - strip  # of each strip
    passed = possible & (before + tl.cumsum(w, 2) > target)
    return row_min(tl.where(passed, column, NONE)), row_max(tl.where(possible, column, -1))


@device_function
def choose(w, target, column):
    """The column where the running sum of w passes the target. Where rounding leaves the target beyond the end, the
    last one that can be drawn."""
    first, last = passing(w, target, 0.0, column)
    return tl.where(first == NONE, last, first)


@device_function
def sampling_rate(parameters, bits, row, rows, rows_per_group, T: tl.constexpr):
    """``1 / sample_tau``; NaN if that is out of range."""
    tau = temperature(parameters, SAMPLE_TAU, bits, row, rows, rows_per_group).to(T)
    return tl.where(tau == 1.0, tau, 1.0 / tau)  # exact at 1, whatever a GPU's division is


@triton.jit(
    do_not_specialize=[
        "rows_per_group",
        "sample_tau_bits",
        "rows",
        "columns",
        "rows_per_seed",
        "first_row",
        "logits_stride",
        "logits_column_stride",
    ],
    do_not_specialize_on_alignment=["one_hot", "index", "logits", "seed", "parameters"],
)
def sample_kernel(
    one_hot,
    index,
    logits,
    seed,
    parameters,
    rows_per_group: tl.int64,
    sample_tau_bits: tl.int64,
    rows: tl.int64,
    columns: tl.int32,
    rows_per_seed: tl.int64,
    first_row: tl.int64,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    R: tl.constexpr,
    C: tl.constexpr,
    Q: tl.constexpr,
    VECTOR: tl.constexpr,
    BINARY: tl.constexpr,
):
    """R rows a program, all their columns in registers."""
    row = rows_of_program(R)
    if BINARY:
        z, invalid, empty = with_other_category(read_variables(logits, row, rows, logits_stride, C), C)
    else:
        x = read(logits, row, rows, logits_stride, logits_column_stride, 0, columns, -float("inf"), C, Q, VECTOR)
        z, invalid, empty = normalise(x)
    rate = sampling_rate(parameters, sample_tau_bits, row, rows, rows_per_group, z.dtype)
    invalid = invalid | (rate != rate)
    group, place = group_of(tl.minimum(row, rows - 1), rows_per_seed, rows)
    w = exp(z * rate).to(tl.float64)
    column = columns_of(C, Q)
    winner = choose(w, uniform(tl.load(seed + group), first_row + place) * row_sum(w), column)
    D = tl.where(column == winner, 1.0, 0.0)
    if BINARY:
        write_variables(one_hot, with_row_rules(D, invalid, empty), row, rows, C)
    else:
        write(one_hot, with_row_rules(D, invalid, empty), row, rows, 0, columns, C, Q, VECTOR)
    tl.store(index + row, tl.where(invalid | empty, -1, winner).to(tl.int64), row < rows)


# --- long rows, split into parts ------------------------------------------------------------------------------------


@triton.jit(
    do_not_specialize=[
        "rows_per_group",
        "sample_tau_bits",
        "columns",
        "length",
        "logits_stride",
        "logits_column_stride",
    ],
    do_not_specialize_on_alignment=["tops", "totals", "logits", "parameters"],
)
def sample_totals_kernel(
    tops,
    totals,
    logits,
    parameters,
    rows_per_group: tl.int64,
    sample_tau_bits: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    C: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Maximum of each part, and its sum of ``exp((logits - maximum) / sample_tau)``."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    begin = part * length
    end = tl.minimum(begin + length, columns)
    top, _ = maximum_of_tiles(logits, row, logits_stride, logits_column_stride, begin, end, columns, -1, C, VECTOR)
    rate = sampling_rate(parameters, sample_tau_bits, row, tl.num_programs(0), rows_per_group, top.dtype)
    total = tl.zeros([1, 1, C], tl.float64)
    for first in range(begin, end, C):
        x = read(logits, row, row + 1, logits_stride, logits_column_stride, first, columns, -float("inf"), C, 1, VECTOR)
        total += exp(below(x, top) * rate).to(tl.float64)
    at = row * tl.num_programs(1) + part + tl.zeros([1, 1, 1], tl.int32)
    tl.store(tops + at, top)
    tl.store(totals + at, row_sum(total))


@triton.jit(
    do_not_specialize=[
        "rows_per_group",
        "sample_tau_bits",
        "columns",
        "length",
        "rows_per_seed",
        "first_row",
        "logits_stride",
        "logits_column_stride",
    ],
    do_not_specialize_on_alignment=["one_hot", "index", "tops", "totals", "logits", "seed", "parameters"],
)
def sample_part_kernel(
    one_hot,
    index,
    tops,
    totals,
    logits,
    seed,
    parameters,
    rows_per_group: tl.int64,
    sample_tau_bits: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    rows_per_seed: tl.int64,
    first_row: tl.int64,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The part where the running sum passes the target looks for the column; every part writes its own columns."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    parts = tl.arange(0, PARTS)[None, None, :]
    there = parts < tl.num_programs(1)
    tops_of_row = tl.load(tops + row * tl.num_programs(1) + parts, there, other=-float("inf"))
    top = tl.max(tops_of_row)  # scalars: in the layout of a tile of one element every thread would hold all parts
    rate = sampling_rate(parameters, sample_tau_bits, row, tl.num_programs(0), rows_per_group, top.dtype)
    invalid = (top == float("inf")) | (rate != rate)
    empty = top == -float("inf")
    scale = exp(tl.where(invalid | empty, 0.0, below(tops_of_row, top) * rate).to(tl.float64))
    shares = tl.load(totals + row * tl.num_programs(1) + parts, there, other=0.0) * scale
    group, place = group_of(row + tl.zeros([1, 1, 1], tl.int64), rows_per_seed, tl.num_programs(0))
    target = tl.max(uniform(tl.load(seed + group), first_row + place)) * tl.sum(shares)
    chosen = tl.where(invalid | empty, 0, tl.max(choose(shares, target, parts)))
    is_chosen = parts == chosen
    target = (target - tl.sum(tl.where(parts < chosen, shares, 0.0))) / tl.sum(tl.where(is_chosen, scale, 0.0))
    part_top = tl.max(tl.where(is_chosen, tops_of_row, -float("inf")))
    mine = chosen == part

    begin = part * length
    end = tl.minimum(begin + length, columns)
    winner = tl.full([1, 1, 1], NONE, tl.int32)
    last = tl.full([1, 1, 1], -1, tl.int32)
    before = tl.zeros([1, 1, 1], tl.float64)
    for first in range(begin, tl.where(mine, end, begin), C):
        x = read(logits, row, row + 1, logits_stride, logits_column_stride, first, columns, -float("inf"), C, 1, VECTOR)
        w = exp(below(x, part_top) * rate).to(tl.float64)
        passed, possible = passing(w, target, before, first + columns_of(C, 1))
        winner = tl.minimum(winner, passed)
        last = tl.maximum(last, possible)
        before += row_sum(w)
    winner = tl.where(invalid | empty, -1, tl.where(winner == NONE, last, winner))
    for first in range(begin, end, C):
        D = tl.where(first + columns_of(C, 1) == winner, 1.0, 0.0)
        write(one_hot, with_row_rules(D, invalid, empty), row, row + 1, first, columns, C, 1, VECTOR)
    tl.store(index + row + tl.zeros([1, 1, 1], tl.int32), winner.to(tl.int64), mine)
