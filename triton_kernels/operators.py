"""Tensors in, kernels launched, tensors out; and the same as operators that torch.compile sees."""

import contextlib
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..namespace import NAMESPACE
from ..reference import ALL_DRAWS, STRATIFIED, WITH_DRAWS, check_soft, is_binary, without_binary
from .jit import INTERPRETED
from .launch import (
    MOST_COLUMNS,
    PARTS,
    TILE,
    TILE_WARPS,
    Launcher,
    block,
    has_data,
    is_vector,
    parameters_of,
    split,
    strided,
)
from .long_estimators import LongRows, pull_back
from .minimum_variance import MOST_FLOAT_TEMPERATURE
from .sample import sample_kernel, sample_part_kernel, sample_totals_kernel
from .surrogate_vjp import surrogate_vjp_kernel


def launch_now(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    kernel[grid](*arguments, **options)


def launch_traced(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """A launch that torch.compile takes into its graph."""
    torch.library.wrap_triton(kernel)[grid](*arguments, **options)


def sample(
    launch: Launcher,
    logits: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    binary: bool = False,
) -> tuple[Tensor, Tensor]:
    """The numbers tau, coefficient and sample_tau count where there are no parameters."""
    one_hot = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    index = torch.empty(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    rows, columns = index.numel(), 2 if binary else logits.shape[-1]
    if rows == 0:
        return one_hot, index
    check(rows, logits, seed=seed, parameters=parameters)
    x, seed = strided(logits), seed.contiguous()
    rows_per_seed, vector = rows // seed.numel(), is_vector(x)
    given = parameters_of(parameters, (tau, coefficient, sample_tau), rows, seed)
    rate = (given.groups, given.rows_per_group, given.sample_tau)
    if columns <= MOST_COLUMNS:
        tile = block(columns, has_draws=False)
        launch(
            sample_kernel,
            (-(-rows // tile.rows),),
            one_hot,
            index,
            x.tensor,
            seed,
            *rate,
            rows,
            columns,
            rows_per_seed,
            first_row,
            x.row,
            x.column,
            R=tile.rows,
            C=tile.columns,
            Q=tile.strips,
            VECTOR=vector,
            BINARY=binary,
            num_warps=tile.warps,
        )
        return one_hot, index
    parts, length = split(rows, columns)
    work = torch.float64 if logits.dtype == torch.float64 else torch.float32
    tops = torch.empty((rows, parts), dtype=work, device=logits.device)
    totals = torch.empty((rows, parts), dtype=torch.float64, device=logits.device)
    layout = {"C": TILE, "VECTOR": vector, "num_warps": TILE_WARPS}
    arguments = (tops, totals, x.tensor, *rate, columns, length, x.row, x.column)
    launch(sample_totals_kernel, (rows, parts), *arguments, **layout)
    launch(
        sample_part_kernel,
        (rows, parts),
        one_hot,
        index,
        tops,
        totals,
        x.tensor,
        seed,
        *rate,
        columns,
        length,
        rows_per_seed,
        first_row,
        x.row,
        x.column,
        PARTS=PARTS,
        **layout,
    )
    return one_hot, index


def surrogate(
    launch: Launcher,
    mode: str,
    grad: Tensor | None,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    estimator: str,
    num_samples: int,
) -> Tensor:
    """The pull-back of a gradient, or what another mode of ``softmax_jvp.py`` makes without one; parameters as in
    :func:`sample`."""
    if mode != "pull_back":
        check_soft(estimator)
    whole, binary, estimator = estimator, is_binary(estimator), without_binary(estimator)
    if binary and num_samples == ALL_DRAWS:
        estimator += "_of_all_draws"
    rows, columns = index.numel(), 2 if binary else logits.shape[-1]
    if rows == 0:
        return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    check(rows, logits, seed=seed, index=index, parameters=parameters, grad=grad)
    if estimator == "mve" and grad is not None:
        if columns > MOST_COLUMNS:  # in as much memory, by PyTorch's own kernels
            given = (tau, coefficient, sample_tau) if parameters is None else parameters
            return reference.surrogate_vjp(grad, logits, index, seed, given, estimator, num_samples)
        may_be_hot = parameters is not None or coefficient > MOST_FLOAT_TEMPERATURE
        if may_be_hot and logits.dtype != torch.float64:
            call = (index, seed, parameters, tau, coefficient, sample_tau, first_row, whole, num_samples)
            return surrogate(launch, mode, grad.double(), logits.double(), *call).to(logits.dtype)
    x, seed, index = strided(logits), seed.contiguous(), index.contiguous()
    v = x if grad is None else strided(grad)
    given = parameters_of(parameters, (tau, coefficient, sample_tau), rows, seed)
    is_stratified, estimator = estimator.startswith(STRATIFIED), estimator.removeprefix(STRATIFIED)
    if columns > MOST_COLUMNS:
        long_rows = LongRows(launch, mode, v, x, index, seed, given, first_row, num_samples, is_stratified)
        return pull_back(long_rows, estimator)
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    tile = block(columns, estimator in WITH_DRAWS or estimator == "mve", mode == "tau")
    launch(
        surrogate_vjp_kernel,
        (-(-rows // tile.rows),),
        out,
        v.tensor,
        x.tensor,
        index,
        seed,
        given.groups,
        given.rows_per_group,
        given.tau,
        given.coefficient,
        num_samples,
        rows,
        columns,
        rows // seed.numel(),
        first_row,
        x.row,
        x.column,
        v.row,
        v.column,
        ESTIMATOR=estimator,
        STRATIFIED=is_stratified,
        MODE=mode,
        R=tile.rows,
        C=tile.columns,
        Q=tile.strips,
        VECTOR=is_vector(x, v),
        BINARY=binary,
        num_warps=tile.warps,
    )
    return out


def check(rows: int, logits: Tensor, **others: Tensor | None) -> None:
    """What the kernels would read beyond the end of: raises ValueError or TypeError naming the argument."""
    if not has_data(logits):
        return
    for name, x in others.items():
        if x is None:
            continue
        if x.device != logits.device:
            raise ValueError(f"{name}: got a tensor on {x.device}, allowed: the logits' device, {logits.device}")
        if name == "parameters" and (x.dtype != torch.float64 or x.ndim != 2 or x.shape[1] != 3):
            raise ValueError(f"{name}: got {tuple(x.shape)} of {x.dtype}, allowed: (T, 3) of float64")
        if name in ("seed", "parameters") and (len(x) == 0 or rows % len(x)):
            raise ValueError(f"{name}: got {len(x)} for {rows} rows, allowed: a divisor of their number")
        if name in ("seed", "index") and x.dtype != torch.int64:
            raise TypeError(f"{name}: got {x.dtype}, allowed: int64")
        if name == "index" and x.shape != logits.shape[:-1]:
            raise ValueError(f"index: got shape {tuple(x.shape)}, allowed: a row's, {tuple(logits.shape[:-1])}")
        if name == "grad" and x.shape != logits.shape:
            raise ValueError(f"grad: got shape {tuple(x.shape)}, allowed: the logits', {tuple(logits.shape)}")


# --- operators ------------------------------------------------------------------------------------------------------
# With a GPU their launches become part of the compiled graph; the interpreter's stay behind an opaque operator.

_launch = launch_now if INTERPRETED else launch_traced


def _sample(
    logits: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    binary: bool = False,
) -> tuple[Tensor, Tensor]:
    with device_of(logits):
        return sample(_launch, logits, seed, parameters, tau, coefficient, sample_tau, first_row, binary)


def _surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    estimator: str,
    num_samples: int,
) -> Tensor:
    call = (logits, index, seed, parameters, tau, coefficient, sample_tau, first_row, estimator, num_samples)
    with device_of(logits):
        return surrogate(_launch, "soft", None, *call)


def _surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    estimator: str,
    num_samples: int,
) -> Tensor:
    call = (logits, index, seed, parameters, tau, coefficient, sample_tau, first_row, estimator, num_samples)
    with device_of(logits):
        return surrogate(_launch, "pull_back", grad, *call)


def _tau_derivative(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    parameters: Tensor | None,
    tau: float,
    coefficient: float,
    sample_tau: float,
    first_row: int,
    estimator: str,
    num_samples: int,
) -> Tensor:
    call = (logits, index, seed, parameters, tau, coefficient, sample_tau, first_row, estimator, num_samples)
    with device_of(logits):
        return surrogate(_launch, "tau", None, *call)


_define = torch.library.custom_op if INTERPRETED else torch.library.triton_op
sample_op = _define(f"{NAMESPACE}_triton::sample", mutates_args=())(_sample)
surrogate_op = _define(f"{NAMESPACE}_triton::surrogate", mutates_args=())(_surrogate)
surrogate_vjp_op = _define(f"{NAMESPACE}_triton::surrogate_vjp", mutates_args=())(_surrogate_vjp)
tau_derivative_op = _define(f"{NAMESPACE}_triton::tau_derivative", mutates_args=())(_tau_derivative)


@sample_op.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), logits.new_empty(logits.shape[:-1], dtype=torch.int64)


@surrogate_op.register_fake
@tau_derivative_op.register_fake
def _(logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


@surrogate_vjp_op.register_fake
def _(grad: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


def is_eager(*tensors: Tensor) -> bool:
    """Whether the kernels can be launched at once: there is data and nobody traces. An operator's dispatch takes
    longer."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not traced and all(map(has_data, tensors))


def device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device."""
    if x.is_cuda and has_data(x) and x.get_device() != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()
