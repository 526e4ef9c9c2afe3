"""Tensors in, kernels launched, tensors out; and the same as operators that torch.compile sees."""

import contextlib
from typing import Any

import torch
from torch import Tensor

from .jit import INTERPRETED
from .launch import MOST_COLUMNS, PARTS, TILE, TILE_WARPS, Launcher, bits, block, has_data, is_vector, split, strided
from .long_estimators import LongRows, pull_back
from .sample import sample_kernel, sample_part_kernel, sample_totals_kernel
from .surrogate_vjp import WITH_DRAWS, surrogate_vjp_kernel


def launch_now(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    kernel[grid](*arguments, **options)


def launch_traced(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """A launch that torch.compile takes into its graph."""
    torch.library.wrap_triton(kernel)[grid](*arguments, **options)


def sample(launch: Launcher, logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    one_hot = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    index = torch.empty(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    rows, columns = index.numel(), logits.shape[-1]
    if rows == 0:
        return one_hot, index
    check(rows, logits, seed=seed)
    x, seed = strided(logits), seed.contiguous()
    rows_per_seed, vector = rows // seed.numel(), is_vector(x)
    if columns <= MOST_COLUMNS:
        tile = block(columns, has_draws=False)
        launch(
            sample_kernel,
            (-(-rows // tile.rows),),
            one_hot,
            index,
            x.tensor,
            seed,
            rows,
            columns,
            rows_per_seed,
            x.row,
            x.column,
            R=tile.rows,
            C=tile.columns,
            Q=tile.strips,
            VECTOR=vector,
            num_warps=tile.warps,
        )
        return one_hot, index
    parts, length = split(rows, columns)
    work = torch.float64 if logits.dtype == torch.float64 else torch.float32
    tops = torch.empty((rows, parts), dtype=work, device=logits.device)
    totals = torch.empty((rows, parts), dtype=torch.float64, device=logits.device)
    layout = {"C": TILE, "VECTOR": vector, "num_warps": TILE_WARPS}
    launch(sample_totals_kernel, (rows, parts), tops, totals, x.tensor, columns, length, x.row, x.column, **layout)
    launch(
        sample_part_kernel,
        (rows, parts),
        one_hot,
        index,
        tops,
        totals,
        x.tensor,
        seed,
        columns,
        length,
        rows_per_seed,
        x.row,
        x.column,
        PARTS=PARTS,
        **layout,
    )
    return one_hot, index


def surrogate_vjp(
    launch: Launcher,
    grad: Tensor | None,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    taus: Tensor | None,
    tau: float,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    """The pull-back, or the soft sample where there is no gradient; ``tau`` counts where there are no ``taus``."""
    rows, columns = index.numel(), logits.shape[-1]
    if rows == 0:
        return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    check(rows, logits, seed=seed, index=index, tau=taus, grad=grad)
    x, seed, index = strided(logits), seed.contiguous(), index.contiguous()
    v = None if grad is None else strided(grad)
    rows_per_tau = 0 if taus is None else rows // taus.numel()
    taus = seed if taus is None else taus.to(torch.float64).contiguous().view(torch.int64)
    if columns > MOST_COLUMNS:
        call = (launch, v, x, index, seed, taus, tau, rows_per_tau, coefficient, num_samples)
        return pull_back(LongRows(*call), estimator)
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    tile, v = block(columns, estimator in WITH_DRAWS), v or x
    launch(
        surrogate_vjp_kernel,
        (-(-rows // tile.rows),),
        out,
        v.tensor,
        x.tensor,
        index,
        seed,
        taus,
        bits(tau),
        bits(coefficient),
        num_samples,
        rows,
        columns,
        rows // seed.numel(),
        rows_per_tau,
        x.row,
        x.column,
        v.row,
        v.column,
        ESTIMATOR=estimator,
        SOFT=grad is None,
        R=tile.rows,
        C=tile.columns,
        Q=tile.strips,
        VECTOR=is_vector(x, v),
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
        if name in ("seed", "tau") and (x.numel() == 0 or rows % x.numel()):
            raise ValueError(f"{name}: got {x.numel()} for {rows} rows, allowed: a divisor of their number")
        if name in ("seed", "index") and x.dtype != torch.int64:
            raise TypeError(f"{name}: got {x.dtype}, allowed: int64")
        if name == "index" and x.shape != logits.shape[:-1]:
            raise ValueError(f"index: got shape {tuple(x.shape)}, allowed: a row's, {tuple(logits.shape[:-1])}")
        if name == "grad" and x.shape != logits.shape:
            raise ValueError(f"grad: got shape {tuple(x.shape)}, allowed: the logits', {tuple(logits.shape)}")


# --- operators ------------------------------------------------------------------------------------------------------
# With a GPU their launches become part of the compiled graph; the interpreter's stay behind an opaque operator.

_launch = launch_now if INTERPRETED else launch_traced


def _sample(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    with device_of(logits):
        return sample(_launch, logits, seed)


def _surrogate(
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    taus: Tensor | None,
    tau: float,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    with device_of(logits):
        return surrogate_vjp(_launch, None, logits, index, seed, taus, tau, estimator, coefficient, num_samples)


def _surrogate_vjp(
    grad: Tensor,
    logits: Tensor,
    index: Tensor,
    seed: Tensor,
    taus: Tensor | None,
    tau: float,
    estimator: str,
    coefficient: float,
    num_samples: int,
) -> Tensor:
    with device_of(logits):
        return surrogate_vjp(_launch, grad, logits, index, seed, taus, tau, estimator, coefficient, num_samples)


_define = torch.library.custom_op if INTERPRETED else torch.library.triton_op
sample_op = _define("discrete_ops_triton::sample", mutates_args=())(_sample)
surrogate_op = _define("discrete_ops_triton::surrogate", mutates_args=())(_surrogate)
surrogate_vjp_op = _define("discrete_ops_triton::surrogate_vjp", mutates_args=())(_surrogate_vjp)


@sample_op.register_fake
def _(logits: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape), logits.new_empty(logits.shape[:-1], dtype=torch.int64)


@surrogate_op.register_fake
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
