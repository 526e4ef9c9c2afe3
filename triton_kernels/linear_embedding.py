"""Logits that are a product, in no memory: tiles of them, by tensor cores, in the kernels that draw and pull back.

The draw goes over the columns once, in parts, and again over the part that a row's target falls in. The pull-back of
an estimator whose gradient at a logit is a function of the logit, v and a few numbers of the row goes over them for
those numbers, and once more for each gradient: at hidden with the rows in its programs, at proj and bias with the
columns, so that nothing is added in an order of chance.

It multiplies more than the parts of :mod:`discrete_ops.linear_operators` do, nine products of the size of the logits a
backward pass for their five, and moves less. No GPU has measured it: it runs where ``backend="triton"`` is asked for.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import philox, reference
from .jit import device_function
from .launch import Launcher
from .operators import device_of, launch_now
from .perturbation import perturbed
from .rows import below, finite_or_inf, with_row_rules
from .softmax_jvp import half_way, jacobian_product, mean_type, mixed, tempered_softmax
from .vector_math import HAS_INSTRUCTIONS, exp

ESTIMATORS = ("straight_through", "gst", "reinmax", "mix")
MOST_FEATURES = 256  #: Of H and D: a program holds whole rows of the tables.
LEAST_FEATURES = 16  #: Of a tile's product.
WIDE = 512  #: Bytes of a table's row beyond which tiles are smaller: four of them fit into shared memory.
PARTS, PROGRAMS = 64, 512  #: Of a row; that fill a large GPU.
#: The columns of what is known of a row: its maximum, +inf where it is invalid; 1 / tau; gap or a; of two softmaxes,
#: at tau and at 1, the inverse of the weights' sum and the mean of v as a sum of two; v of the sampled category.
TOP, RATE, COEFFICIENT, AT_TAU, AT_ONE, V_WINNER = (tl.constexpr(place) for place in (0, 1, 2, 3, 6, 9))
KNOWN = tl.constexpr(10)
SUMS = tl.constexpr(5)  # of w, w v at tau; at 1; of v of the sampled category

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
        logits = logits_of(x, table, bias, column, columns, HAS_BIAS)
        v = product(g, rows_of_table(weight, column, columns, weight_stride, outputs, D))
        v = tl.where(logits == -float("inf"), 0.0, v).to(tl.float64)
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
        logits = logits_of(x, table, bias, column, columns, HAS_BIAS)
        v = product(g, rows_of_table(weight, column, columns, weight_stride, outputs, D))
        v = tl.where(logits == -float("inf"), 0.0, v)
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
        logits = logits_of(x, table, bias, column, columns, HAS_BIAS)
        v = product(rows_of_table(grad, row, end, grad_stride, outputs, D), values)
        v = tl.where(logits == -float("inf"), 0.0, v)
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


# --- the host's side ------------------------------------------------------------------------------------------------


def serves(estimator: str, hidden: Tensor, weight: Tensor) -> bool:
    """Whether these kernels do: tables of so many features, in the dtypes that tensor cores were made for."""
    features = max(hidden.shape[-1], weight.shape[-1])
    return (
        estimator in ESTIMATORS and features <= MOST_FEATURES and hidden.dtype != torch.float64 and hidden.numel() > 0
    )


class Product(NamedTuple):
    """Rows, tables, and how they are cut into tiles."""

    hidden: Tensor  # (rows, H)
    proj: Tensor
    bias: Tensor | None
    block: int
    parts: int
    length: int  # columns a part

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.hidden, self.proj, self.proj if self.bias is None else self.bias

    @property
    def grid(self) -> tuple[int, int]:
        return -(-len(self.hidden) // self.block), self.parts

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.hidden), len(self.proj), self.length

    def layout(self, **others: Any) -> dict[str, Any]:
        wide = {"HAS_BIAS": self.bias is not None, "H": _padded(self.hidden.shape[1]), "BLOCK": self.block}
        return {**others, **wide, "num_warps": 4, "num_stages": 1}


def product_of(hidden: Tensor, proj: Tensor, bias: Tensor | None, outputs: int) -> Product:
    hidden, proj = _by_rows(hidden), _by_rows(proj)
    block = 64 if _padded(max(hidden.shape[1], outputs)) * hidden.element_size() <= WIDE else 32
    tiles = -(-len(proj) // block)
    parts = min(tiles, PARTS, max(1, PROGRAMS // -(-len(hidden) // block)))
    length = -(-tiles // parts) * block
    bias = None if bias is None else bias.contiguous()
    return Product(hidden, proj, bias, block, -(-len(proj) // length), length)


def _by_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _padded(features: int) -> int:
    return max(LEAST_FEATURES, triton.next_power_of_2(features))


def known_of(parameters: Tensor, rows: int, which: int) -> Tensor:
    """``(rows, KNOWN)`` float32 with the inverse of one of the temperatures, NaN where it is out of range, and the
    coefficient."""
    each = parameters.repeat_interleave(rows // len(parameters), 0)
    tau, known = each[:, which], each.new_zeros((rows, KNOWN.value), dtype=torch.float32)
    known[:, RATE.value] = (1 / tau).where((tau >= reference.LEAST_TAU) & (tau <= reference.MOST_TAU), torch.nan)
    known[:, COEFFICIENT.value] = each[:, 1]
    return known


def tops_and_totals(launch: Launcher, x: Product, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each part; tops are +inf in rows that are invalid, by their logits or their temperature."""
    tops = known.new_empty((len(known), x.parts))
    totals = torch.empty_like(tops, dtype=torch.float64)
    strides = (x.hidden.stride(0), x.proj.stride(0), x.hidden.shape[1])
    launch(totals_kernel, x.grid, tops, totals, known, *x.tensors, *x.sizes, *strides, **x.layout())
    return tops.masked_fill_(known[:, RATE.value, None].isnan(), torch.inf), totals


def sample(
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    outputs: int,
    seed: Tensor,
    parameters: Tensor,
    first_row: int,
    launch: Launcher = launch_now,
) -> tuple[Tensor, Tensor]:
    """The index of each row; and what the one-hot of it has in its first column if it has no sample, NaN or 0."""
    with device_of(hidden):
        x = product_of(hidden, proj, bias, outputs)
        known = known_of(parameters, len(hidden), 2)
        tops, totals = tops_and_totals(launch, x, known)
        top = tops.amax(1, keepdim=True)
        lacks = top.isinf()
        scale = ((tops - top) * known[:, RATE.value, None]).double().exp().masked_fill(lacks, 0.0)
        shares = totals * scale
        sums = shares.cumsum(1)
        target = philox.uniform(seed, len(hidden), first_row) * sums[:, -1:]
        last = (shares > 0).long().mul(torch.arange(x.parts, device=shares.device)).amax(1, keepdim=True)
        part = (sums <= target).sum(1, keepdim=True).minimum(last)
        inside = (target - (sums - shares).gather(1, part)) / scale.gather(1, part)
        index = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
        strides = (x.hidden.stride(0), x.proj.stride(0), x.hidden.shape[1])
        chosen = (part, inside, tops.gather(1, part), known)
        launch(winner_kernel, (len(hidden),), index, *chosen, *x.tensors, *x.sizes, *strides, **x.layout())
        return index.masked_fill_(lacks[:, 0], -1), torch.where(top[:, 0] == torch.inf, torch.nan, 0.0).to(hidden.dtype)


def pull_back(
    grad: Tensor,
    hidden: Tensor,
    proj: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    index: Tensor,
    parameters: Tensor,
    estimator: str,
    groups: int,
    at_hidden: bool,
    at_tables: bool,
    launch: Launcher = launch_now,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients at hidden, and at proj ``(groups, N, H)`` and bias ``(groups, N)``: None where not wanted."""
    with device_of(hidden):
        x, grad, weight = product_of(hidden, proj, bias, weight.shape[1]), _by_rows(grad), _by_rows(weight)
        rows, columns, _ = x.sizes
        known = known_of(parameters, rows, 0)
        tops, _ = tops_and_totals(launch, x, known)
        known[:, TOP.value] = tops.amax(1)
        sums = known.new_empty((rows, x.parts, SUMS.value), dtype=torch.float64)
        strides = (
            grad.stride(0),
            x.hidden.stride(0),
            x.proj.stride(0),
            weight.stride(0),
            x.hidden.shape[1],
            grad.shape[1],
        )
        call = (index.contiguous(), known, grad, *x.tensors, weight)
        layout = x.layout(ESTIMATOR=estimator, D=_padded(grad.shape[1]))
        launch(sums_kernel, x.grid, sums, *call, *x.sizes, *strides, **layout)
        total, dot, total_at_one, dot_at_one, known[:, V_WINNER.value] = sums.sum(1).unbind(1)
        for place, of_w, of_wv in ((AT_TAU.value, total, dot), (AT_ONE.value, total_at_one, dot_at_one)):
            mean = of_wv / of_w
            known[:, place], known[:, place + 1] = 1 / of_w, mean
            known[:, place + 2] = mean - known[:, place + 1].double()
        gradients: list[Tensor | None] = [None, None, None]
        if at_hidden:
            added = known.new_empty((x.parts, *hidden.shape))
            launch(hidden_kernel, x.grid, added, *call, *x.sizes, *strides, **layout)
            gradients[0] = added.sum(0).to(hidden.dtype)
        if at_tables:
            gradients[1:] = hidden.new_empty((groups, *proj.shape)), hidden.new_empty((groups, columns))
            grid, sizes = (-(-columns // x.block), groups), (rows, columns, rows // groups)
            launch(tables_kernel, grid, *gradients[1:], *call, *sizes, *strides, **layout)
        return gradients[0], gradients[1], gradients[2]
