"""The estimators on a tile of whole rows: each is its list of terms, as in ``discrete_ops/reference.py``.

And their kernel, which keeps everything on chip: it reads logits and gradient and writes the result, whatever the
number of draws. Its MODE is as in ``softmax_jvp.py``.
"""

import triton
import triton.language as tl

from .binary import (
    gumbel_rao_of_all_draws,
    read_variables,
    with_other_category,
    without_certain,
    write_variables,
)
from .conditional_gumbel import add_draws, draw, prepare
from .jit import device_function
from .minimum_variance import mve
from .perturbation import perturbed, pi_gap
from .rows import (
    COEFFICIENT,
    TAU,
    columns_of,
    group_of,
    normalise,
    parameter,
    read,
    row_min,
    row_sum,
    rows_of_program,
    rows_type,
    temperature,
    with_row_rules,
    without_masked,
    write,
)
from .softmax_jvp import add, add_half_way, mean_under, mixed, rk2, tempered_softmax, winner_of
from .vector_math import exp, inverse


@device_function
def straight_through(out, weight, rate, r, MODE: tl.constexpr):
    """GST Eq. 7, BR Eq. 3."""
    return add(out, weight * rate, tempered_softmax(r.z, rate), r, MODE)


@device_function
def gumbel_rao(out, r, MODE: tl.constexpr, STRATIFIED: tl.constexpr):
    """GST Eq. 11, BR Eq. 6-7; K = 1 is STGS, GST Eq. 10, BR Eq. 5."""
    return add_draws(out, 1.0, prepare(r.z, r), 1.0, 0, r, MODE, STRATIFIED)


@device_function
def gst(out, gap, r, MODE: tl.constexpr):
    """GST Eq. 17-19, Algorithm 1."""
    return add(out, r.inv_tau, tempered_softmax(perturbed(r.z, r.winner, gap), r.inv_tau), r, MODE)


@device_function
def reinmax(out, r):
    """BR Eq. 12, 16."""
    return straight_through(add_half_way(out, r.inv_tau, r), -0.5, 1.0, r, "pull_back")


@device_function
def argmax(z):
    """The first argmax, as one-hot of bools."""
    column = columns_of(z.shape[0] * z.shape[2], z.shape[0])
    return column == row_min(tl.where(z == 0.0, column, z.shape[0] * z.shape[2]))


@device_function
def reinmax_argmax(out, r):
    """The diagnostic of BR Table 1: ReinMax with the argmax where the sample belongs."""
    return reinmax(
        out,
        rows_type()(r.z, r.v, argmax(r.z), r.tau, r.inv_tau, r.is_tau_one, r.coefficient, r.num_samples, r.seed, r.row),
    )


@device_function
def reinmax_rao(out, r, STRATIFIED: tl.constexpr):
    """BR Eq. 17; the last term is at temperature 1. Off the winner p_D is pi_t / 2, so the partition doubles."""
    out = straight_through(out, -0.5, 1.0, r, "pull_back")
    return add_draws(out, 2.0, prepare(r.z * r.inv_tau, r), 2.0, 0, r, "pull_back", STRATIFIED)


@device_function
def reinmax_cv(out, r, SOFT_CONTROL: tl.constexpr, STRATIFIED: tl.constexpr):
    """BR Eq. 18; the control is the ReinMax term nudged by the soft sample that chose D, over tau, or draw 0 of the
    Rao term."""
    out = straight_through(add_half_way(out, 1.0, r), -0.5, 1.0, r, "pull_back")
    weight = -r.coefficient.to(r.z.dtype) * r.inv_tau
    pi = prepare(r.z, r)
    if SOFT_CONTROL:
        w = draw(pi, 1.0, 0, r)
        p = exp(r.z) * inverse(pi.partition) + tl.where(r.winner, 1.0, 0.0)
        out = add(out, weight, p * exp(w * inverse(row_sum(w))), r, "pull_back")
    else:
        out = add(out, weight, draw(pi, 2.0, 0, r), r, "pull_back")
    return add_draws(out, r.coefficient, pi, 2.0, 1, r, "pull_back", STRATIFIED)


@device_function
def reinmax_rk2(out, r):
    """BR Eq. 27, at temperature 1."""
    w = tempered_softmax(r.z, 1.0)
    beta = r.coefficient.to(r.z.dtype)
    return out + rk2(w, mean_under(w, r.v), r.v, winner_of(r.v, r), r.winner, beta)


@device_function
def mix(out, r):
    """Straight-through at a = 0, ReinMax at a = 1: ``(1 - a / 2) J(pi; v) + a / 2 <v, D - pi> (D - pi)``."""
    w = tempered_softmax(r.z, 1.0)
    a = r.coefficient.to(r.z.dtype)
    return out + mixed(w, mean_under(w, r.v), r.v, winner_of(r.v, r), r.winner, a)


@device_function
def pull_back(r, ESTIMATOR: tl.constexpr, STRATIFIED: tl.constexpr, MODE: tl.constexpr):
    """The table of the family, ``reference.TERMS``."""
    out = tl.zeros_like(r.z)
    if ESTIMATOR == "straight_through":
        return straight_through(out, 1.0, r.inv_tau, r, MODE)
    elif ESTIMATOR == "gumbel_rao":
        return gumbel_rao(out, r, MODE, STRATIFIED)
    elif ESTIMATOR == "gumbel_rao_of_all_draws":
        return gumbel_rao_of_all_draws(out, r, MODE)
    elif ESTIMATOR == "gst":
        return gst(out, r.coefficient.to(r.z.dtype), r, MODE)
    elif ESTIMATOR == "gst_pi":
        return gst(out, pi_gap(r), r, MODE)
    elif ESTIMATOR == "reinmax":
        return reinmax(out, r)
    elif ESTIMATOR == "reinmax_argmax":
        return reinmax_argmax(out, r)
    elif ESTIMATOR == "reinmax_rao":
        return reinmax_rao(out, r, STRATIFIED)
    elif ESTIMATOR == "reinmax_cv":
        return reinmax_cv(out, r, True, STRATIFIED)
    elif ESTIMATOR == "reinmax_cv_gumbel":
        return reinmax_cv(out, r, False, STRATIFIED)
    elif ESTIMATOR == "reinmax_rk2":
        return reinmax_rk2(out, r)
    elif ESTIMATOR == "mix":
        return mix(out, r)
    else:
        tl.static_assert(ESTIMATOR == "mve")
        return mve(out, r)


@triton.jit(
    do_not_specialize=[
        "rows_per_group",
        "tau_bits",
        "coefficient_bits",
        "num_samples",
        "rows",
        "columns",
        "rows_per_seed",
        "first_row",
        "logits_stride",
        "logits_column_stride",
        "grad_stride",
        "grad_column_stride",
    ],
    do_not_specialize_on_alignment=["out", "grad", "logits", "index", "seed", "parameters"],
)
def surrogate_vjp_kernel(
    out,
    grad,
    logits,
    index,
    seed,
    parameters,
    rows_per_group: tl.int64,
    tau_bits: tl.int64,
    coefficient_bits: tl.int64,
    num_samples: tl.int32,
    rows: tl.int64,
    columns: tl.int32,
    rows_per_seed: tl.int64,
    first_row: tl.int64,
    logits_stride: tl.int64,
    logits_column_stride: tl.int64,
    grad_stride: tl.int64,
    grad_column_stride: tl.int64,
    ESTIMATOR: tl.constexpr,
    STRATIFIED: tl.constexpr,
    MODE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    Q: tl.constexpr,
    VECTOR: tl.constexpr,
    BINARY: tl.constexpr,
):
    """R rows a program, all their columns in registers. Doubles come as their bits, since Triton takes floats as
    float32."""
    row = rows_of_program(R)
    if BINARY:
        x = read_variables(logits, row, rows, logits_stride, C)
        z, invalid, empty = with_other_category(x, C)
    else:
        x = read(logits, row, rows, logits_stride, logits_column_stride, 0, columns, -float("inf"), C, Q, VECTOR)
        z, invalid, empty = normalise(x)
    v = tl.zeros_like(z)
    if MODE == "pull_back":  # scaled: sums over a row of any finite ones, and differences, stay finite
        if BINARY:
            v = without_certain(read_variables(grad, row, rows, grad_stride, C).to(z.dtype) * (0.25 / C), x)
        else:
            v = read(grad, row, rows, grad_stride, grad_column_stride, 0, columns, 0.0, C, Q, VECTOR).to(z.dtype)
            v = without_masked(v * (0.25 / C), x)
    winner = columns_of(C, Q) == tl.load(index + row, row < rows, other=0).to(tl.int32)
    tau = temperature(parameters, TAU, tau_bits, row, rows, rows_per_group).to(z.dtype)
    group, place = group_of(tl.minimum(row, rows - 1), rows_per_seed, rows)
    r = rows_type()(
        z,
        v,
        winner,
        tau,
        1.0 / tau,
        tl.min((tau == 1.0).to(tl.int32)) == 1,
        parameter(parameters, COEFFICIENT, coefficient_bits, row, rows, rows_per_group),
        num_samples,
        tl.load(seed + group),
        first_row + place,
    )
    result = pull_back(r, ESTIMATOR, STRATIFIED, MODE)
    if MODE == "pull_back":
        result *= 4.0 * C
    if BINARY:
        write_variables(out, with_row_rules(result, invalid, empty), row, rows, C)
    else:
        write(out, with_row_rules(result, invalid, empty), row, rows, 0, columns, C, Q, VECTOR)
