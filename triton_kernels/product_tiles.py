"""Kernels on logits that are a product: tiles of them by tensor cores, each used where it is made.

What is known of a row is a row of ``known``, in the columns below.
"""

import triton
import triton.language as tl

from .jit import device_function
from .perturbation import perturbed
from .rows import below, finite_or_inf, with_row_rules
from .softmax_jvp import half_way, jacobian_product, mean_type, mixed, tempered_softmax
from .vector_math import HAS_INSTRUCTIONS, exp

#: The maximum of the logits, +inf where the row is invalid; 1 / tau; gap or a; of two softmaxes, at tau and at 1, the
#: inverse of the weights' sum and the mean of v as a sum of two; v of the sampled category.
TOP, RATE, COEFFICIENT, AT_TAU, AT_ONE, V_WINNER = (tl.constexpr(place) for place in (0, 1, 2, 3, 6, 9))
KNOWN = tl.constexpr(10)
SUMS = tl.constexpr(5)  # of w, and w v, at tau; at 1; of v of the sampled category

_SIZES = ["rows", "columns", "length", "rows_per_group"]
_POINTERS = ["tops", "totals", "sums", "known", "index", "part", "target"]
_UNSPECIALISED = {"do_not_specialize": _SIZES, "do_not_specialize_on_alignment": _POINTERS}


@device_function
def rows_of_table(x, row, rows, stride, features, F: tl.constexpr):
    """``(len(row), F)`` of a table, 0 beyond its rows and features."""
    feature = tl.arange(0, F)
    at = x + row.to(tl.int64)[:, None] * stride + feature[None, :]
    return tl.load(at, (row < rows)[:, None] & (feature < features)[None, :], other=0.0)


@device_function
def dot(x, y, total):
    """``total + x @ y``, in float32; the interpreter's own takes bfloat16 for integers."""
    if HAS_INSTRUCTIONS:
        return tl.dot(x, y, total, input_precision="ieee")
    else:
        return tl.dot(x.to(tl.float32), y.to(tl.float32), total, input_precision="ieee")


@device_function
def product(x, table):
    """``x @ table.T`` rounded as its dtype is."""
    whole = dot(x, tl.trans(table), tl.zeros([x.shape[0], table.shape[0]], tl.float32))
    return whole.to(x.dtype).to(tl.float32)


@device_function
def logits_of(x, table, bias, column, columns, HAS_BIAS: tl.constexpr):
    """A tile of ``F.linear``, -inf beyond the columns."""
    logits = dot(x, tl.trans(table), tl.zeros([x.shape[0], table.shape[0]], tl.float32))
    if HAS_BIAS:
        logits += tl.load(bias + column, column < columns, other=0.0).to(tl.float32)[None, :]
    return tl.where((column < columns)[None, :], logits.to(x.dtype).to(tl.float32), -float("inf"))


@device_function
def logits_and_v(x, table, bias, g, values, column, columns, HAS_BIAS: tl.constexpr):
    """A tile of the logits, and of the gradient at their sample, 0 where they are masked."""
    logits = logits_of(x, table, bias, column, columns, HAS_BIAS)
    return logits, tl.where(logits == -float("inf"), 0.0, product(g, values))


@device_function
def of_row(known, row, rows, which):
    return tl.load(known + row.to(tl.int64) * KNOWN + which, row < rows, other=0.0)[:, None]


@device_function
def weights_of(z, is_winner, rate, coefficient, ESTIMATOR: tl.constexpr):
    """Of the softmax at tau; of the mix, which has none, at 1."""
    if ESTIMATOR == "gst":
        return tempered_softmax(perturbed(z, is_winner, coefficient), rate)
    elif ESTIMATOR == "mix":
        return tempered_softmax(z, 1.0)
    else:
        return tempered_softmax(z, rate)


@device_function
def mean_of(known, row, rows, which):
    inverse, high = of_row(known, row, rows, which), of_row(known, row, rows, which + 1)
    return mean_type()(inverse, high, of_row(known, row, rows, which + 2))


@device_function
def gradient_of(logits, v, is_winner, known, row, rows, ESTIMATOR: tl.constexpr):
    """At a tile of logits; v is 0 where they are masked."""
    top = of_row(known, row, rows, TOP)
    invalid, empty = top == float("inf"), top == -float("inf")
    z = below(logits, tl.where(invalid | empty, 0.0, top))
    rate, coefficient = of_row(known, row, rows, RATE), of_row(known, row, rows, COEFFICIENT)
    w, mean = weights_of(z, is_winner, rate, coefficient, ESTIMATOR), mean_of(known, row, rows, AT_TAU)
    v_winner = of_row(known, row, rows, V_WINNER)
    if ESTIMATOR == "reinmax":
        gradient = half_way(w, mean, v, v_winner, is_winner)
        gradient = jacobian_product(gradient, -0.5, tempered_softmax(z, 1.0), mean_of(known, row, rows, AT_ONE), v)
    elif ESTIMATOR == "mix":
        gradient = mixed(w, mean, v, v_winner, is_winner, coefficient)
    else:
        gradient = jacobian_product(tl.zeros_like(v), rate, w, mean, v)
    return with_row_rules(gradient, invalid, empty)


@triton.jit(**_UNSPECIALISED)
def totals_kernel(
    tops,
    totals,
    known,
    hidden,
    proj,
    bias,
    rows: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    hidden_stride,
    proj_stride,
    features,
    HAS_BIAS: tl.constexpr,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each part of each row its maximum, NaN taken for +inf, and its sum of ``exp((logits - maximum) / tau)``."""
    row, begin = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1) * length
    x = rows_of_table(hidden, row, rows, hidden_stride, features, H)
    rate = of_row(known, row, rows, RATE)
    top = tl.full([BLOCK, 1], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK, 1], tl.float64)
    for first in range(begin, tl.minimum(begin + length, columns), BLOCK):
        column = first + tl.arange(0, BLOCK)
        table = rows_of_table(proj, column, columns, proj_stride, features, H)
        logits = finite_or_inf(logits_of(x, table, bias, column, columns, HAS_BIAS))
        higher = tl.maximum(top, tl.max(logits, 1, keep_dims=True))
        # Where there is none yet the sum is 0; of an invalid row it is not read.
        moved = exp((below(top, higher) * rate).to(tl.float64))
        total = tl.where(top == -float("inf"), 0.0, total * moved)
        w = tl.where(logits == -float("inf"), 0.0, exp(below(logits, higher) * rate))
        total += tl.sum(w.to(tl.float64), 1, keep_dims=True)
        top = higher
    at = (row.to(tl.int64) * tl.num_programs(1) + tl.program_id(1))[:, None]
    tl.store(tops + at, top, (row < rows)[:, None])
    tl.store(totals + at, total, (row < rows)[:, None])


@triton.jit(**_UNSPECIALISED)
def winner_kernel(
    index,
    part,
    target,
    tops,
    known,
    hidden,
    proj,
    bias,
    rows: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    hidden_stride,
    proj_stride,
    features,
    HAS_BIAS: tl.constexpr,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row: the first column of its part where the running sum passes the target; where rounding leaves the target
    beyond the end, the last one that can be drawn."""
    row = tl.program_id(0)
    rate, top = tl.load(known + row * KNOWN + RATE), tl.load(tops + row)
    sought, begin = tl.load(target + row), tl.load(part + row).to(tl.int32) * length
    x = rows_of_table(
        hidden, row + tl.zeros([16], tl.int32), rows, hidden_stride, features, H
    )  # the least of a product
    found, last = columns, begin
    before = sought * 0.0
    for first in range(begin, tl.minimum(begin + length, columns), BLOCK):
        column = first + tl.arange(0, BLOCK)
        table = rows_of_table(proj, column, columns, proj_stride, features, H)
        logits = tl.max(logits_of(x, table, bias, column, columns, HAS_BIAS), 0)
        w = tl.where(logits == -float("inf"), 0.0, exp(below(logits, top) * rate)).to(tl.float64)
        passed = (w > 0.0) & (before + tl.cumsum(w, 0) > sought)
        found = tl.minimum(found, tl.min(tl.where(passed, column, columns)))
        last = tl.maximum(last, tl.max(tl.where(w > 0.0, column, -1)))
        before += tl.sum(w)
    tl.store(index + row, tl.where(found == columns, last, found).to(tl.int64))


@triton.jit(**_UNSPECIALISED)
def sums_kernel(
    sums,
    index,
    known,
    grad,
    hidden,
    proj,
    bias,
    weight,
    rows: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    grad_stride,
    hidden_stride,
    proj_stride,
    weight_stride,
    features,
    outputs,
    ESTIMATOR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of each part of each row what ``SUMS`` names."""
    row, begin = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1) * length
    x = rows_of_table(hidden, row, rows, hidden_stride, features, H)
    g = rows_of_table(grad, row, rows, grad_stride, outputs, D)
    winner = tl.load(index + row, row < rows, other=-1)[:, None]
    top = of_row(known, row, rows, TOP)
    shift = tl.where((top == float("inf")) | (top == -float("inf")), 0.0, top)
    rate, coefficient = of_row(known, row, rows, RATE), of_row(known, row, rows, COEFFICIENT)
    zero = tl.zeros([BLOCK, 1], tl.float64)
    total, dot, total_at_one, dot_at_one, v_winner = zero, zero, zero, zero, zero
    for first in range(begin, tl.minimum(begin + length, columns), BLOCK):
        column = first + tl.arange(0, BLOCK)
        table = rows_of_table(proj, column, columns, proj_stride, features, H)
        values = rows_of_table(weight, column, columns, weight_stride, outputs, D)
        logits, v = logits_and_v(x, table, bias, g, values, column, columns, HAS_BIAS)
        v = v.to(tl.float64)
        z, is_winner = below(logits, shift), column[None, :] == winner
        w = weights_of(z, is_winner, rate, coefficient, ESTIMATOR).to(tl.float64)
        total += tl.sum(w, 1, keep_dims=True)
        dot += tl.sum(w * v, 1, keep_dims=True)
        if ESTIMATOR == "reinmax":
            w = tempered_softmax(z, 1.0).to(tl.float64)
            total_at_one += tl.sum(w, 1, keep_dims=True)
            dot_at_one += tl.sum(w * v, 1, keep_dims=True)
        v_winner += tl.sum(tl.where(is_winner, v, 0.0), 1, keep_dims=True)
    at = sums + ((row.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * SUMS)[:, None]
    there = (row < rows)[:, None]
    tl.store(at, total, there)
    tl.store(at + 1, dot, there)
    tl.store(at + 2, total_at_one, there)
    tl.store(at + 3, dot_at_one, there)
    tl.store(at + 4, v_winner, there)


@triton.jit(**_UNSPECIALISED)
def hidden_kernel(
    out,
    index,
    known,
    grad,
    hidden,
    proj,
    bias,
    weight,
    rows: tl.int64,
    columns: tl.int32,
    length: tl.int32,
    grad_stride,
    hidden_stride,
    proj_stride,
    weight_stride,
    features,
    outputs,
    ESTIMATOR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What each part of the columns adds to the gradient at hidden: ``(parts, rows, H)`` float32."""
    row, begin = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1) * length
    x = rows_of_table(hidden, row, rows, hidden_stride, features, H)
    g = rows_of_table(grad, row, rows, grad_stride, outputs, D)
    winner = tl.load(index + row, row < rows, other=-1)[:, None]
    total = tl.zeros([BLOCK, H], tl.float32)
    for first in range(begin, tl.minimum(begin + length, columns), BLOCK):
        column = first + tl.arange(0, BLOCK)
        table = rows_of_table(proj, column, columns, proj_stride, features, H)
        values = rows_of_table(weight, column, columns, weight_stride, outputs, D)
        logits, v = logits_and_v(x, table, bias, g, values, column, columns, HAS_BIAS)
        gradient = gradient_of(logits, v, column[None, :] == winner, known, row, rows, ESTIMATOR)
        total = dot(gradient.to(table.dtype), table, total)
    feature = tl.arange(0, H)
    at = out + ((tl.program_id(1) * rows + row)[:, None] * features + feature[None, :])
    tl.store(at, total, (row < rows)[:, None] & (feature < features)[None, :])


@triton.jit(**_UNSPECIALISED)
def tables_kernel(
    at_proj,
    at_bias,
    index,
    known,
    grad,
    hidden,
    proj,
    bias,
    weight,
    rows: tl.int64,
    columns: tl.int32,
    rows_per_group: tl.int64,
    grad_stride,
    hidden_stride,
    proj_stride,
    weight_stride,
    features,
    outputs,
    ESTIMATOR: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients at proj and bias of one group of rows, some columns a program."""
    column, group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    table = rows_of_table(proj, column, columns, proj_stride, features, H)
    values = rows_of_table(weight, column, columns, weight_stride, outputs, D)
    total = tl.zeros([BLOCK, H], tl.float32)
    total_at_bias = tl.zeros([BLOCK], tl.float32)
    end = (group + 1) * rows_per_group
    for first in range(group * rows_per_group, end, BLOCK):
        row = first + tl.arange(0, BLOCK)
        x = rows_of_table(hidden, row, end, hidden_stride, features, H)
        g = rows_of_table(grad, row, end, grad_stride, outputs, D)
        logits, v = logits_and_v(x, table, bias, g, values, column, columns, HAS_BIAS)
        winner = tl.load(index + row, row < end, other=-1)[:, None]
        gradient = gradient_of(logits, v, column[None, :] == winner, known, row, end, ESTIMATOR)
        gradient = tl.where((row < end)[:, None], gradient, 0.0).to(x.dtype)
        total = dot(tl.trans(gradient), x, total)
        total_at_bias += tl.sum(gradient.to(tl.float32), 0)
    feature = tl.arange(0, H)
    at = (group * columns + column).to(tl.int64)
    there = column < columns
    to = at_proj + (at[:, None] * features + feature[None, :])
    tl.store(to, total.to(at_proj.dtype.element_ty), there[:, None] & (feature < features)[None, :])
    tl.store(at_bias + at, total_at_bias.to(at_bias.dtype.element_ty), there)
