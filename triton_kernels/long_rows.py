"""Pull-backs of rows too long for the registers of one program: a row is split into parts, a part is a loop over tiles.

An estimator is a sequence of terms here too, in each MODE of ``softmax_jvp.py``. A term is two launches: ``weigh`` sums
its weights w, and w times v, over each part; ``add`` puts the parts together and adds the term to the result. So the
number of programs does not depend on the number of rows, and the order of every sum is fixed. Draws are taken ``DRAWS``
at a time: memory does not depend on K, and the noise of a draw is made twice.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from .conditional_gumbel import bounded, conditional_weights
from .jit import compile_time, device_function
from .perturbation import gap_of_log_odds, perturbed
from .philox import exponential_at, exponentials
from .rows import (
    COEFFICIENT,
    TAU,
    below,
    columns_of,
    from_bits,
    group_of,
    maximum_of_tiles,
    parameter,
    read,
    row_max,
    row_sum,
    temperature,
    with_row_rules,
    without_masked,
    write,
)
from .softmax_jvp import (
    half_way,
    jacobian_product,
    mean_type,
    minus_log,
    mixed,
    rk2,
    soft_sample,
    tempered_softmax,
)
from .vector_math import exp, inverse


class LongRow(NamedTuple):
    """What the weights of a term depend on; scalars as ``(1, 1, 1)``."""

    top: tl.tensor  # maximum of the logits
    others: tl.tensor  # maximum without the winner's, minus `top`
    winner: tl.tensor  # column of the sampled category
    z_winner: tl.tensor
    tau: tl.tensor
    inv_tau: tl.tensor
    is_tau_one: tl.tensor  # a true scalar
    rate: tl.tensor  # what logits are multiplied by: 1 / tau, or 1
    coefficient: tl.tensor  # float64
    gap: tl.tensor
    partition: tl.tensor  # sum of exp(rate z), times the term's factor
    soft_total: tl.tensor  # sum of the weights of the control's draw
    seed: tl.tensor
    row: tl.tensor  # its number under its seed
    first_draw: tl.tensor  # of those that share their strata; scalars
    num_samples: tl.tensor  # and how many do


@compile_time
def long_row_type():
    from discrete_ops.triton_kernels.long_rows import LongRow

    return LongRow


@triton.jit(
    do_not_specialize=["columns", "length", "logits_stride", "logits_column_stride"],
    do_not_specialize_on_alignment=["tops", "logits", "index"],
)
def tops_kernel(
    tops,
    logits,
    index,
    columns: tl.int32,
    length: tl.int32,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    C: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Maximum of each part, with and without the winner's logit."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    begin = part * length
    end = tl.minimum(begin + length, columns)
    winner = tl.load(index + row).to(tl.int32)
    top, others = maximum_of_tiles(
        logits, row, logits_stride, logits_column_stride, begin, end, columns, winner, C, VECTOR
    )
    at = 2 * (row * tl.num_programs(1) + part) + tl.zeros([1, 1, 1], tl.int32)
    tl.store(tops + at, top)
    tl.store(tops + at + 1, others)


@device_function
def over_parts(x, row, slot, slots, which, other, PARTS: tl.constexpr):
    """What the parts of a row left in one slot, ``(1, 1, PARTS)``; the layout is ``(rows, slots, parts, 2)``."""
    parts = tl.arange(0, PARTS)[None, None, :]
    at = ((row * slots + slot) * tl.num_programs(1) + parts) * 2 + which
    return tl.load(x + at, parts < tl.num_programs(1), other=other)


@device_function
def total_of(sums, row, slot, slots, PARTS: tl.constexpr):
    return row_sum(over_parts(sums, row, slot, slots, 0, 0.0, PARTS))


@device_function
def mean_of(sums, row, slot, slots, T: tl.constexpr, PARTS: tl.constexpr):
    """The mean of v under a term's weights, from sums in float64."""
    inv_total = 1.0 / total_of(sums, row, slot, slots, PARTS)
    mean = row_sum(over_parts(sums, row, slot, slots, 1, 0.0, PARTS)) * inv_total
    return mean_type()(inv_total.to(T), mean.to(T), (mean - mean.to(T).to(tl.float64)).to(T))


@device_function
def open_row(
    tops,
    partitions,
    soft_totals,
    logits,
    index,
    seed,
    parameters,
    rows_per_group,
    tau_bits,
    coefficient_bits,
    factor,
    at_one,
    columns,
    rows_per_seed,
    first_row,
    first_stratified,
    num_samples,
    logits_stride,
    logits_column_stride,
    TERM: tl.constexpr,
    PARTS: tl.constexpr,
):
    T: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    row = tl.program_id(0).to(tl.int64)
    place = row + tl.zeros([1, 1, 1], tl.int64)
    top = row_max(over_parts(tops, row, 0, 1, 0, -float("inf"), PARTS))
    usable = (top < float("inf")) & (top > -float("inf"))
    shift = tl.where(usable, top, 0.0)
    others = below(row_max(over_parts(tops, row, 0, 1, 1, -float("inf"), PARTS)), shift)
    winner = tl.minimum(tl.maximum(tl.load(index + place), 0), columns - 1)
    z_winner = below(tl.load(logits + row * logits_stride + winner * logits_column_stride).to(T), shift)
    tau = temperature(parameters, TAU, tau_bits, place, tl.num_programs(0), rows_per_group).to(T)
    coefficient = parameter(parameters, COEFFICIENT, coefficient_bits, place, tl.num_programs(0), rows_per_group)
    rate = tl.where(at_one != 0, 1.0, 1.0 / tau)
    group, place = group_of(place, rows_per_seed, tl.num_programs(0))
    gap = tl.full([1, 1, 1], 0.0, T)
    partition = tl.full([1, 1, 1], 1.0, T)
    soft_total = tl.full([1, 1, 1], 1.0, T)
    if TERM == "perturbed":
        gap = coefficient.to(T)
    if TERM == "perturbed_pi":
        gap = gap_of_log_odds(z_winner, others, total_of(partitions, row, 0, 1, PARTS).to(T))
    if TERM == "draws" or TERM == "control":
        partition = (total_of(partitions, row, 0, 1, PARTS) * factor).to(T)
    if TERM == "control":
        soft_total = total_of(soft_totals, row, 0, 1, PARTS).to(T)
    return long_row_type()(
        top,
        others,
        winner.to(tl.int32),
        z_winner,
        tau,
        1.0 / tau,
        tl.min((tau == 1.0).to(tl.int32)) == 1,
        rate,
        coefficient,
        gap,
        partition,
        soft_total,
        tl.load(seed + group),
        first_row + place,
        first_stratified,
        num_samples,
    )


@device_function
def draw(z, winner, k, first, r, C: tl.constexpr, STRATIFIED: tl.constexpr):
    """Weights of draw k, as ``conditional_gumbel.draw``; the winner may be in another tile."""
    y = z * r.rate
    k = tl.full([1, 1, 1], k, tl.int32)
    block = first // 4 + columns_of(C // 4, 1)
    e = exponentials(r.seed, k, r.row, block, r.first_draw, r.num_samples, z.dtype, STRATIFIED)
    e_winner = exponential_at(r.seed, k, r.row, r.winner, r.first_draw, r.num_samples, z.dtype, STRATIFIED)
    clamped = bounded(y, r.is_tau_one)
    x = e * (r.partition * inverse(e_winner)) * inverse(exp(clamped))
    return conditional_weights(x, clamped - y, winner, r.inv_tau, r.is_tau_one)


@device_function
def weights(z, winner, k, first, r, TERM: tl.constexpr, C: tl.constexpr, STRATIFIED: tl.constexpr):
    """The weights of a term in one tile."""
    if TERM == "softmax":
        return tempered_softmax(z, r.rate)
    elif TERM == "others":
        return tl.where(winner, 0.0, exp(z - tl.where(r.others == -float("inf"), 0.0, r.others)))
    elif TERM == "perturbed" or TERM == "perturbed_pi":
        return tempered_softmax(perturbed(z, winner, r.gap), r.rate)
    elif TERM == "draws":
        return draw(z, winner, k, first, r, C, STRATIFIED)
    else:
        tl.static_assert(TERM == "control")
        p = exp(z) * inverse(r.partition) + tl.where(winner, 1.0, 0.0)
        return p * exp(draw(z, winner, 0, first, r, C, False) * inverse(r.soft_total))


@triton.jit(
    do_not_specialize=[
        "rows_per_group",
        "tau_bits",
        "coefficient_bits",
        "weight_bits",
        "factor_bits",
        "at_one",
        "times_coefficient",
        "over_tau",
        "is_first",
        "is_last",
        "first_draw",
        "draws",
        "slots",
        "first_stratified",
        "num_samples",
        "columns",
        "length",
        "rows_per_seed",
        "first_row",
        "logits_stride",
        "logits_column_stride",
        "grad_stride",
        "grad_column_stride",
    ],
    do_not_specialize_on_alignment=[
        "out",
        "sums",
        "tops",
        "partitions",
        "soft_totals",
        "grad",
        "logits",
        "index",
        "seed",
        "parameters",
    ],
)
def term_kernel(
    out,
    sums,
    tops,
    partitions,
    soft_totals,
    grad,
    logits,
    index,
    seed,
    parameters,
    rows_per_group: tl.int64,
    tau_bits: tl.int64,
    coefficient_bits: tl.int64,
    weight_bits: tl.int64,
    factor_bits: tl.int64,
    at_one: tl.int32,
    times_coefficient: tl.int32,
    over_tau: tl.int32,
    is_first: tl.int32,
    is_last: tl.int32,
    first_draw: tl.int32,
    draws: tl.int32,
    slots: tl.int32,
    first_stratified: tl.int32,
    num_samples: tl.int32,
    columns: tl.int32,
    length: tl.int32,
    rows_per_seed: tl.int64,
    first_row: tl.int64,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    grad_stride: tl.int64,
    grad_column_stride: tl.int64,
    STEP: tl.constexpr,
    MODE: tl.constexpr,
    TERM: tl.constexpr,
    STRATIFIED: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """One part of one row, in one term. STEP "weigh" fills ``sums``; any other adds the term to ``out``: "jacobian",
    or what else a pull-back may have, "half_way", "rk2" and "mix". A gradient is scaled, and so is ``out`` but
    for the last term's."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    begin = part * length
    end = tl.minimum(begin + length, columns)
    factor = from_bits(factor_bits)
    r = open_row(
        tops,
        partitions,
        soft_totals,
        logits,
        index,
        seed,
        parameters,
        rows_per_group,
        tau_bits,
        coefficient_bits,
        factor,
        at_one,
        columns,
        rows_per_seed,
        first_row,
        first_stratified,
        num_samples,
        logits_stride,
        logits_column_stride,
        TERM,
        PARTS,
    )
    T: tl.constexpr = tl.float64 if logits.dtype.element_ty == tl.float64 else tl.float32
    # A power of 2, so that differences from a mean stay finite, and sums over a row: in float64, whose range may be the
    # gradient's own.
    SMALL: tl.constexpr = 2.0**-34 if tl.float64 == T else 2.0**-4
    SCALE: tl.constexpr = SMALL if MODE == "pull_back" else 1.0
    invalid = r.top == float("inf")
    empty = r.top == -float("inf")
    shift = tl.where(invalid | empty, 0.0, r.top)
    v = tl.zeros([1, 1, C], T)
    if STEP == "weigh":
        for k in range(0, draws):
            total = tl.zeros([1, 1, C], tl.float64)
            dot = tl.zeros([1, 1, C], tl.float64)
            for first in range(begin, end, C):
                x = read(
                    logits,
                    row,
                    row + 1,
                    logits_stride,
                    logits_column_stride,
                    first,
                    columns,
                    -float("inf"),
                    C,
                    1,
                    VECTOR,
                )
                z = below(x, shift)
                winner = first + columns_of(C, 1) == r.winner
                w = weights(z, winner, first_draw + k, first, r, TERM, C, STRATIFIED)
                total += w.to(tl.float64)
                if MODE == "pull_back":
                    v = read(grad, row, row + 1, grad_stride, grad_column_stride, first, columns, 0.0, C, 1, VECTOR)
                    v = without_masked(v.to(T) * SCALE, x)
                if MODE == "tau":
                    v = minus_log(w)
                dot += w.to(tl.float64) * v.to(tl.float64)
            at = ((row * slots + k) * tl.num_programs(1) + part) * 2 + tl.zeros([1, 1, 1], tl.int32)
            tl.store(sums + at, row_sum(total))
            tl.store(sums + at + 1, row_sum(dot))
    else:
        weight = from_bits(weight_bits)
        weight = tl.where(times_coefficient != 0, weight * r.coefficient, weight).to(T)
        weight = tl.where(over_tau != 0, weight * r.inv_tau, weight)
        unscale = tl.where(is_last != 0, 1.0 / SCALE, 1.0).to(T)
        v_winner = tl.load(grad + row * grad_stride + r.winner.to(tl.int64) * grad_column_stride).to(T) * SCALE
        for first in range(begin, end, C):
            x = read(
                logits, row, row + 1, logits_stride, logits_column_stride, first, columns, -float("inf"), C, 1, VECTOR
            )
            if MODE == "pull_back":
                v = read(grad, row, row + 1, grad_stride, grad_column_stride, first, columns, 0.0, C, 1, VECTOR)
                v = without_masked(v.to(T) * SCALE, x)
            z = below(x, shift)
            winner = first + columns_of(C, 1) == r.winner
            y = read(out, row, row + 1, columns, 1, first, columns * (1 - is_first), 0.0, C, 1, VECTOR)
            for k in range(0, draws):
                w = weights(z, winner, first_draw + k, first, r, TERM, C, STRATIFIED)
                mean = mean_of(sums, row, k, slots, T, PARTS)
                if MODE == "soft":
                    y = soft_sample(y, weight, w, mean.inverse, r.tau)
                elif MODE == "tau":
                    y = jacobian_product(y, weight, w, mean, minus_log(w))
                elif STEP == "jacobian":
                    y = jacobian_product(y, weight, w, mean, v)
                elif STEP == "half_way":
                    y += half_way(w, mean, v, v_winner, winner)
                elif STEP == "rk2":
                    y += rk2(w, mean, v, v_winner, winner, weight)
                else:
                    tl.static_assert(STEP == "mix")
                    y += mixed(w, mean, v, v_winner, winner, weight)
            write(out, with_row_rules(y * unscale, invalid, empty), row, row + 1, first, columns, C, 1, VECTOR)
